// Package interop lets the stock Jumpstarter release judge jumplead.
//
// Jumpstarter's own exporter, client, command line and pytest fixture are
// Python. A foreign exporter is right when that client cannot tell it from
// the stock exporter, and no amount of reading the protocol proves it as well
// as running the client does. So the tests here install the release from the
// package index into a virtual environment (see [pyenv]), start an exporter
// as a process, and let Python drive it.
//
// Every case runs twice: against jumplead and against the stock exporter,
// started with the same arguments and the same config. What both must do is
// simply asserted. Where the stock exporter is wrong, the case names the
// defect, and its Python run must fail in the way that the name says; once
// upstream mends it, the test says so. What only the stock exporter passes is
// a fault of ours.
//
// There are these sets:
//
//   - the cases of testdata/judge, a table that one long-lived Python process
//     works through: reports, calls, streams, images in every packing, scripts,
//     logs, status codes, TLS and passphrases, and the programs jmp and j;
//   - upstream's client tests as they ship in its wheels. The pytest plugin
//     testdata/foreign/foreign_exporter.py writes the driver objects of each
//     test into an exporter config and starts the exporter under test where
//     the test expected an exporter in its own process;
//   - the driver packages of the release, all that can be had as wheels, where
//     jumplead hosts them: testdata/packages/packages.yaml says of each what is made
//     and called, and with what in place of its hardware. Their own tests are run in
//     the same way as the client's;
//   - the process itself: signals, exit statuses, a port that is taken;
//   - one large image, and the memory that it costs jumplead: 1 GiB, or as many
//     as the environment variable JUMPLEAD_LARGE_GIB says. 3 are worth a try now
//     and then; they want 7 GiB of disk and a minute more.
//
// The package holds no code, only tests. They need the capability "python":
// a python3 of 3.11 or newer with the venv module, and a package index.
//
// [pyenv]: https://pkg.go.dev/github.com/jumplead/jumplead/cmd/jumplead/interop/pyenv
package interop
