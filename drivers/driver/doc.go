// Package driver is the kernel of every driver: what a harness exports, how a
// configuration becomes a tree of opened hardware, and how a remote call finds
// its method. It knows JSON-shaped values and streams of bytes; it knows
// nothing of gRPC.
//
// # Words
//
// A contract is an interface on the wire: a set of method names with their
// arguments, and the Python class that stock clients instantiate for it. A
// backend is one way of fulfilling a contract: a relay on a GPIO line and a
// USB hub are two backends of the power contract. A [Spec] registers a backend
// under the type string that configurations name. A node is one place in the
// tree of a harness: a spec, its decoded config, its children.
//
// # The table
//
// What a backend offers to remote callers is a table of [Export] rows, written
// out by the contract:
//
//	func Exports(p Interface) []driver.Export {
//		return []driver.Export{
//			driver.Do("on", p.On),
//			driver.Do("off", p.Off),
//			driver.Feed("read", p.Read),
//		}
//	}
//
// [Do] and [Call] answer once, without and with a result; [Feed] answers with
// a sequence; [Stream] hands out a byte stream. The numbered forms take one to
// three arguments. The table is the wire contract: a method that is not listed
// cannot be reached, and a function of the wrong shape does not compile.
//
// # Writing one
//
// A driver is a config struct, a function that opens the device, and methods; the
// example of this package shows all of it in one piece.
//
//   - The contract comes first. Where there is one, in the packages beside this one,
//     the driver implements its interface, and every client knows it. Else the lab
//     makes one: rows, and the class that Python clients make for them.
//   - [Define] makes a [Spec] of the config struct and the function. The config's
//     tags are its documentation, its defaults and its limits, see [DecodeConfig];
//     [Validator] and [Claimer] say the rest.
//   - The function gets an [Env]: the board's buses, a log that clients see, the
//     nodes below its own. It may start goroutines, which the driver's Close ends.
//   - Methods watch their context, and may be called while others run.
//   - Errors say what was asked and what was found. Their kind decides which one
//     clients get: [BadArg], [ErrUnavailable], [ErrBusy], [errors.ErrUnsupported],
//     [context.DeadlineExceeded], the system's; see [Classify].
//   - A test opens it with package drivertest, and holds it against the suite of its
//     contract, such as powertest.
//   - The program that lists the spec has the driver: see
//     [github.com/jumplead/jumplead/cmd/jumplead/app].
//
// # From config to hardware
//
// [Plan] turns declarations into a [Tree] without touching any device: it
// decodes configs, resolves references and reports every mistake it finds,
// each with its place. Reports, labels and claims come from the plan alone, so
// that registering a harness never toggles a relay. [Tree.Open] then opens the
// backends depth first. A device that is absent is no failure: its node is
// there, answers [ErrUnavailable], and is opened when it is next asked for
// after the device came back.
//
// # Values
//
// Arguments and results are JSON-shaped Go values: nil, bool, float64, string,
// []any and map[string]any. Numbers are doubles, as they are on the wire, so an
// int argument arrives as 3.0. [Encode] and [Decode] translate between them and
// Go types; durations are seconds, bytes travel only as [Base64], what knows its
// own text (times, addresses, UUIDs) travels as that, and numbers that JSON
// cannot hold (NaN, infinities) become nil.
//
// # The end
//
// [Tree.Close] closes what is open and ends what is being opened: from then on
// every node answers [ErrUnavailable]. It does not wait for calls that are under
// way; a backend ends them in its Close.
package driver
