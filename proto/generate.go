package proto

// The generators and their versions are in gen, a module of its own.
//go:generate go -C gen run .
