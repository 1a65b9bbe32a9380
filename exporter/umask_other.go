//go:build !unix

package exporter

func setUmask(int) int { return 0 }
