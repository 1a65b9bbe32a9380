// Package process runs programs of which nothing stays behind.
//
// An exporter runs what others wrote: scripts of a harness, hooks of a lease.
// They start further processes, which start further ones, and some of these mean
// to stay: they leave the process group, the session, even the family. When the
// time of a script is over, all of that has to go, and nothing else.
//
// # Whose a process is
//
// The kernel does not say which program a process descends from once the ones
// between have ended. So a process is taken for one of a program's when one of
// these holds (see [Mark]):
//
//   - it is in the session that the program was started in: a process leaves it
//     only by beginning one of its own;
//   - it has a variable in the environment that it was started with, which the
//     program was given and which nobody else has: it survives nohup, setsid and
//     double forks, but not env -i, nor a daemon that writes its title over its
//     environment;
//   - one of its ancestors is one of the program's;
//   - it is a stray: the exporter's own child, without having been started by it.
//     Such there are while [Adopt] is in force, by which the kernel hands the
//     processes whose parent has ended to the exporter instead of to process 1.
//     A stray carries no name; [Mark] says when it is taken for a program's own.
//
// Out of reach is what runs as another user, unless the exporter is root, and
// what a service was asked to run: systemd-run, docker, at.
//
// The package works on Linux. Elsewhere there is only [Keeper].
package process
