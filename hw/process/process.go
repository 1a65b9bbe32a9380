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
// # Limits
//
// A program may be given limits, see [StartLimited] and [hw.Limits], which bind all
// that it starts as well. Who keeps them depends on the machine:
//
//   - A control group (cgroup v2) keeps memory, the share of the processors and the
//     number of processes for all of a program's processes together. Above its
//     memory they are killed, all at once. It takes that the exporter may make
//     groups: systemd gives a service that right with Delegate=, and in a container
//     without systemd it has it where the container may write to cgroup2. The groups
//     are made beside one called exporter, into which the exporter moves.
//   - Without one, resource limits (setrlimit) keep memory for each process by
//     itself, without what it shares with others (RLIMIT_DATA), so that an
//     allocation fails. What a program reserves counts as what it uses, such as
//     the stacks of its threads: one in Go does not start with 32M, and jumplead
//     itself, as j in a hook, fails now and then with 128M. They keep the number of
//     processes (RLIMIT_NPROC) together with all others of the same user, unless
//     that is root. A share of the processors cannot be kept.
//   - CPU time, open files and the size of files are resource limits of each process
//     in any case. After its CPU time a process gets SIGXCPU, and SIGKILL after one
//     second more. A process of root's may lift resource limits again.
//   - Control groups are kept by files: a program that runs as the exporter does, or
//     as root, and has all files within reach may put itself into another group. What
//     means to get away is held by groups together with Landlock, under which they
//     can only be read, or where it runs as another user.
//   - Landlock keeps files out of reach. Linux has it since 5.13, where it was not
//     left out. Since 6.2 it also keeps files from being cut off by truncate, since
//     6.12 the program from sending signals to those that are not confined with it.
//     The program may read the system's own folders and /etc but for Jumpstarter's
//     configs, and use the plain devices, such as /dev/null. What is open already,
//     such as standard output, stays usable; a Unix socket that has a path can be
//     connected to. It cannot gain privileges, nor look into other processes; but
//     one of root's reads their environment on Linux 6.14 and newer. A symbolic link
//     that it makes where it may write does not take its next run further: one that
//     leads a path of the limits out of what may be written is refused.
//   - No new privileges: programs with set-user-ID or file capabilities run without
//     these.
//
// A limit that cannot be kept is an error, and the program is not started; [Keeps]
// tells before.
//
// A program takes its limits upon itself before it runs: this program is started in
// its place, under another name, and becomes it. That costs some milliseconds.
// Programs without limits are started directly.
//
// The package works on Linux. Elsewhere there is only [Keeper].
package process
