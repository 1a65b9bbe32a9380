package driver_test

import (
	"context"
	"errors"
	"fmt"
	"io"
	"iter"
	"net"
	"os"
	"strings"
	"time"

	"github.com/google/uuid"
	"github.com/jumplead/jumplead/drivers/driver"
	"github.com/jumplead/jumplead/drivers/driver/drivertest"
	"gopkg.in/yaml.v3"
)

// lampConfig is what a config says of a lamp. The tags tell the key, its default
// and limits, and what it means: they are all that the program needs to read a
// file, to check it and to describe the key.
type lampConfig struct {
	Port  string        `yaml:"port" doc:"serial port of the lamp"`
	Level int           `yaml:"level" default:"80" min:"1" max:"100" doc:"brightness in per cent"`
	Fade  time.Duration `yaml:"fade" default:"0.5" min:"0" doc:"seconds from dark to bright"`
}

// Validate says what the tags cannot.
func (c *lampConfig) Validate() error {
	if !strings.HasPrefix(c.Port, "/dev/") {
		return driver.BadKey("port", "%q is no device", c.Port)
	}
	return nil
}

// Claims lets check find another node that takes the port.
func (c *lampConfig) Claims() []driver.Claim {
	return []driver.Claim{{Kind: "serial port", Name: c.Port}}
}

// Labels are for the clients of a harness.
func (c *lampConfig) Labels() map[string]string { return map[string]string{"lab/port": c.Port} }

// lampContract is what a lamp is on the wire. Python clients make the class
// lab_client.Lamp for it.
var lampContract = driver.Contract{Name: "lamp", Client: "lab_client.Lamp", Kind: "lamp"}

// lamp is the driver itself. Its calls may overlap.
type lamp struct {
	lampConfig
	env *driver.Env
}

func (l *lamp) Light(_ context.Context, level *int) (string, error) {
	if level == nil {
		level = &l.Level
	}
	if *level > 100 {
		return "", driver.BadArg("level", "%d is more than 100", *level)
	}
	l.env.Log.Info("lighting", "level", *level)
	return fmt.Sprintf("%s: %d%% within %v", l.env.Path, *level, l.Fade), nil
}

func (l *lamp) Close() error {
	fmt.Println("the lamp is let go")
	return nil
}

var lampSpec = driver.Define(driver.Spec{
	Type:     "lab.lamp.Serial",
	Contract: lampContract,
	Doc:      "a lamp on a serial port",
}, func(_ context.Context, env *driver.Env, c lampConfig) (driver.Driver, error) {
	l := &lamp{c, env}
	return driver.Driver{Impl: l, Exports: []driver.Export{
		driver.Call1("light", l.Light).Args("level").Help("Light the lamp"),
	}}, nil
})

// A driver from its declaration to its end, as an exporter has it.
func Example() {
	var config yaml.Node
	if err := yaml.Unmarshal([]byte("{port: /dev/ttyUSB0, fade: 2}"), &config); err != nil {
		fmt.Println(err)
	}
	root := driver.Decl{Children: []driver.Decl{{Name: "lamp", Type: lampSpec.Type, Config: &config}}}
	group := driver.Define(driver.Spec{Role: driver.Group, Type: "lab.Group"},
		func(context.Context, *driver.Env, struct{}) (driver.Driver, error) { return driver.Driver{}, nil })
	tree, problems := driver.Plan(root, driver.Options{Specs: []driver.Spec{group, lampSpec}})
	if err := problems.Err(); err != nil {
		fmt.Println(err)
		return
	}
	fmt.Println("claims", tree.Nodes()[1].Claims())
	fmt.Println("report", tree.Reports()[1].Labels)
	ctx := context.Background()
	if err := tree.Open(ctx); err != nil {
		fmt.Println(err)
	}
	c := tree.Nodes()[1].Caller()
	fmt.Println(c.Call(ctx, "light"))
	fmt.Println(c.Call(ctx, "light", 30))
	_, err := c.Call(ctx, "light", 101)
	fmt.Println(err)
	_ = tree.Close()
	_, err = c.Call(ctx, "light")
	fmt.Println(err)
	// Output:
	// claims [serial port /dev/ttyUSB0]
	// report map[jumpstarter.dev/client:lab_client.Lamp jumpstarter.dev/name:lamp lab/port:/dev/ttyUSB0]
	// lamp: 80% within 2s <nil>
	// lamp: 30% within 2s <nil>
	// level: 101 is more than 100
	// the lamp is let go
	// lamp: the session is over: unavailable
}

// What a file says wrong is told with its place, all at once.
func ExampleDecodeConfig() {
	var file yaml.Node
	_ = yaml.Unmarshal([]byte("prot: /dev/ttyUSB0\nlevel: 120\nfade: slow\n"), &file)
	var c lampConfig
	for _, p := range driver.DecodeConfig(&file, &c, driver.Pos{File: "bench.yaml", Line: 1, Column: 1}, false) {
		fmt.Println(p)
	}
	// Output:
	// bench.yaml:1:1: unknown key "prot"; did you mean "port"?
	// bench.yaml:2:8: level: 120 is out of range: 1 to 100
	// bench.yaml:3:7: fade: wants a number of seconds, got "slow"
	// bench.yaml:1:1: key "port" is missing: serial port of the lamp
}

// A sequence ends when its caller stops listening, and when its context is done.
func ExampleFeed() {
	temperatures := func(ctx context.Context) iter.Seq2[float64, error] {
		return func(yield func(float64, error) bool) {
			for t := 20.0; yield(t, nil); t += 0.5 {
			}
		}
	}
	c := driver.Local(driver.Driver{Exports: []driver.Export{driver.Feed("temperatures", temperatures)}})
	for t, err := range driver.Iterate[float64](context.Background(), c, "temperatures") {
		fmt.Println(t, err)
		if t > 20.5 {
			break
		}
	}
	// Output:
	// 20 <nil>
	// 20.5 <nil>
	// 21 <nil>
}

// Anything that reads, writes and closes can be handed out as a stream.
func ExampleStream() {
	dial := func(ctx context.Context) (net.Conn, error) {
		near, far := net.Pipe()
		go func() { // an echo
			defer far.Close()
			_, _ = io.Copy(far, far)
		}()
		return near, nil
	}
	c := driver.Local(driver.Driver{Exports: []driver.Export{driver.Stream("connect", dial)}})
	s, err := c.Stream(context.Background(), "connect")
	if err != nil {
		fmt.Println(err)
		return
	}
	defer s.Close()
	_, _ = io.WriteString(s, "hello")
	b := make([]byte, 5)
	_, err = io.ReadFull(s, b)
	fmt.Printf("%s %v\n", b, err)
	// Output: hello <nil>
}

// A method may take arguments without end.
func ExampleCallTail() {
	sum := func(_ context.Context, unit string, terms ...float64) (string, error) {
		total := 0.0
		for _, t := range terms {
			total += t
		}
		return fmt.Sprint(total, " ", unit), nil
	}
	e := driver.CallTail("sum", sum).Args("unit", "terms")
	c := driver.Local(driver.Driver{Exports: []driver.Export{e}})
	fmt.Println(e.Usage())
	fmt.Println(driver.Invoke[string](context.Background(), c, "sum", "mA", 1, 2, 3.5))
	// Output:
	// sum(unit, *terms)
	// 6.5 mA <nil>
}

// What a client sends beside a call is an argument of type Handle, which the
// driver opens. Offers are the client's end in a test; behind an exporter it may
// be anywhere, and what it sends packed.
func ExampleEnv_Take() {
	size := driver.Define(driver.Spec{Type: "lab.Size", Contract: lampContract},
		func(_ context.Context, env *driver.Env, _ struct{}) (driver.Driver, error) {
			measure := func(ctx context.Context, image driver.Handle) (n int64, err error) {
				err = env.Take(ctx, image, func(r io.Reader) error {
					n, err = driver.Copy(ctx, io.Discard, r)
					return err
				})
				return n, err
			}
			return driver.Driver{Exports: []driver.Export{driver.Call1("size", measure).Args("image")}}, nil
		})
	var offers drivertest.Offers
	tree, problems := driver.Plan(driver.Decl{Type: size.Type}, driver.Options{Specs: []driver.Spec{size}, Resources: &offers})
	if err := problems.Err(); err != nil {
		fmt.Println(err)
		return
	}
	defer tree.Close()
	c := offers.Over(tree.Root.Caller())
	err := driver.Upload(context.Background(), c, strings.NewReader("an image"), func(ctx context.Context, h driver.Handle) error {
		n, err := driver.Invoke[int](ctx, c, "size", h)
		fmt.Println(n, "bytes")
		return err
	})
	fmt.Println(err)
	// Output:
	// 8 bytes
	// <nil>
}

// A driver uses the nodes below its own by name, whatever runs them.
func ExampleEnv_Child() {
	supply := driver.Define(driver.Spec{Type: "lab.Supply", Contract: lampContract},
		func(context.Context, *driver.Env, struct{}) (driver.Driver, error) {
			return driver.Driver{Exports: []driver.Export{
				driver.Call("voltage", func(context.Context) (float64, error) { return 12, nil }),
			}}, nil
		})
	monitor := driver.Define(driver.Spec{Type: "lab.Monitor", Contract: lampContract, Children: []string{"supply"}},
		func(_ context.Context, env *driver.Env, _ struct{}) (driver.Driver, error) {
			c, ok := env.Child("supply")
			if !ok {
				return driver.Driver{}, errors.New("no supply")
			}
			return driver.Driver{Exports: []driver.Export{
				driver.Call("good", func(ctx context.Context) (bool, error) {
					v, err := driver.Invoke[float64](ctx, c, "voltage")
					return v > 11, err
				}),
			}}, nil
		})
	decl := driver.Decl{Type: monitor.Type, Children: []driver.Decl{{Name: "supply", Type: supply.Type}}}
	tree, problems := driver.Plan(decl, driver.Options{Specs: []driver.Spec{supply, monitor}, Namespace: uuid.New()})
	if err := problems.Err(); err != nil {
		fmt.Println(err)
		return
	}
	defer tree.Close()
	fmt.Println(tree.Root.Caller().Call(context.Background(), "good"))
	// Output: true <nil>
}

// How an error is made decides which one clients get, and what the log calls it.
func ExampleClassify() {
	_, gone := os.Open("/dev/no-such-device")
	for _, err := range []error{
		driver.BadArg("level", "101 is more than 100"),
		fmt.Errorf("lamp: %w: %w", driver.ErrUnavailable, gone),
		fmt.Errorf("lamp: %w", gone),
		fmt.Errorf("lamp: no answer: %w", context.DeadlineExceeded),
		errors.ErrUnsupported,
		errors.New("lamp: the bulb is broken"),
	} {
		fmt.Println(driver.Classify(err))
	}
	// Output:
	// validation_error
	// connection_error
	// device_error
	// timeout
	// not_implemented
	// internal_error
}
