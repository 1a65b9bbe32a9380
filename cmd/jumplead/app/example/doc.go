// Package example holds programs that a lab could have: jumplead with a driver of
// the lab's own.
//
//   - relay is the README's: a driver of a contract that every client knows, in
//     forty lines;
//   - tools has a contract of its own, with commands for j and a class for Python
//     clients: a driver with a method execute, which runs what its config allows.
//
// Nothing in them is special to this module. The tests here build each in a module
// outside of its tree, as a lab would, and let the stock client use it; what the
// README shows is what they build.
package example
