package serial

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"os"

	"github.com/jumplead/jumplead/drivers/cli"
	"github.com/spf13/cobra"
	"golang.org/x/term"
)

// Command makes the commands of a line.
func Command(n *cli.Node) *cobra.Command {
	s := NewClient(n.Caller)
	console := &cobra.Command{Use: "start-console", Long: "Start serial port console", RunE: func(c *cobra.Command, _ []string) error {
		fmt.Fprint(c.OutOrStdout(), "\nStarting serial port console ... exit with CTRL+B x 3 times\n\n")
		return console(c.Context(), s, c.InOrStdin(), c.OutOrStdout())
	}}
	return n.Group("Serial port client", console, pipeCommand(s))
}

// The console ends when ctrl-B was typed that often, one right after the other.
const (
	ctrlB    = 0x02
	exitsOn  = 3
	typed    = 1024 // bytes that are read of a terminal at once
	received = 64 << 10
)

// escape looks for the end of a console in what is typed.
type escape int

// pass returns what of p goes to the line, and whether the console ends there.
func (e *escape) pass(p []byte) (send []byte, end bool) {
	for i, b := range p {
		if b != ctrlB {
			*e = 0
			continue
		}
		if *e++; *e == exitsOn {
			return p[:i], true
		}
	}
	return p, false
}

// console joins a terminal and a line until the user ends it. The terminal is
// raw meanwhile: all keys, ctrl-C too, are the line's.
func console(ctx context.Context, s *Client, in io.Reader, out io.Writer) error {
	tty, ok := cli.Terminal(in)
	if !ok {
		return errors.New("a console needs a terminal for its standard input; see pipe for files and scripts")
	}
	// Raw from now on, so that what is typed early is neither echoed nor lost.
	state, err := term.MakeRaw(int(tty.Fd()))
	if err != nil {
		return fmt.Errorf("terminal: %w", err)
	}
	defer term.Restore(int(tty.Fd()), state)

	keys, left := make(chan []byte, 64), make(chan struct{})
	ctx, cancel := context.WithCancel(ctx)
	defer cancel()
	ends := make(chan error, 3)
	// A read of a terminal cannot be interrupted: this one is left to the end of
	// the process when something else ends the console.
	go func() {
		if err := read(ctx, tty, keys); err != nil {
			ends <- err
		}
		close(left)
	}()
	// A user may also leave while the line is opened, where ctrl-C is but a key.
	opening, stop := context.WithCancel(ctx)
	defer stop()
	go func() {
		select {
		case <-left:
			stop()
		case <-opening.Done():
		}
	}()
	line, err := s.Connect(opening)
	if err != nil {
		select {
		case <-left:
			return nil
		default:
			return err
		}
	}
	defer line.Close()
	stop()

	go func() {
		_, err := io.CopyBuffer(onlyWriter{out}, line, make([]byte, received))
		if err == nil {
			err = errors.New("the serial connection was closed by the exporter")
		}
		ends <- err
	}()
	go func() {
		for k := range keys {
			if _, err := line.Write(k); err != nil {
				ends <- err
				return
			}
		}
		ends <- nil
	}()
	select {
	case err = <-ends:
	case <-ctx.Done():
		err = ctx.Err()
	}
	return err
}

// read hands out what is typed at a terminal, up to where the user leaves.
func read(ctx context.Context, tty io.Reader, keys chan<- []byte) error {
	defer close(keys)
	var e escape
	buf := make([]byte, typed)
	for {
		n, err := tty.Read(buf)
		send, end := e.pass(buf[:n])
		if len(send) > 0 {
			select {
			case keys <- bytes.Clone(send):
			case <-ctx.Done():
				return nil
			}
		}
		switch {
		case end || err == io.EOF:
			return nil
		case err != nil:
			return err
		}
	}
}

// onlyWriter hides what else a writer can do: a copy to a file is to write what
// it has at once.
type onlyWriter struct{ io.Writer }

func pipeCommand(s *Client) *cobra.Command {
	var output string
	var input, noInput, appending, noOutput bool
	c := &cobra.Command{Use: "pipe", Long: `Copy what the serial port says to standard output or a file.

Standard input is sent to the port as well when it is no terminal, up to its end; after that the port is listened to until Ctrl+C.

Examples:

j serial pipe # what the port says

j serial pipe -o serial.log # the same, into a file

echo "hello" | j serial pipe # sends, and goes on listening

cat commands.txt | j serial pipe --no-output # sends, and is done at the end`,
	}
	c.Flags().StringVarP(&output, "output", "o", "", "File to write to instead of standard output")
	c.Flags().BoolVarP(&input, "input", "i", false, "Send standard input to the port though it is a terminal")
	c.Flags().BoolVar(&noInput, "no-input", false, "Send nothing to the port though standard input is no terminal")
	c.Flags().BoolVarP(&appending, "append", "a", false, "Append to the output file")
	c.Flags().BoolVar(&noOutput, "no-output", false, "Do not listen: send standard input and exit")
	c.RunE = func(c *cobra.Command, _ []string) error {
		switch {
		case input && noInput:
			return cli.Usage(c, "Cannot use both --input and --no-input")
		case noOutput && output != "":
			return cli.Usage(c, "Cannot use both --no-output and --output")
		case noOutput && appending:
			return cli.Usage(c, "Cannot use both --no-output and --append")
		case appending && output == "":
			return cli.Usage(c, "--append requires --output")
		}
		_, tty := cli.Terminal(c.InOrStdin())
		send := !noInput && (input || !tty)
		if noOutput && !send {
			return cli.Usage(c, "--no-output requires stdin input (pipe stdin or use --input)")
		}
		how := "read-only"
		switch {
		case send && input:
			how = "forced input mode"
		case send:
			how = "auto-detected piped stdin"
		}
		say := func(format string, args ...any) { fmt.Fprintf(c.ErrOrStderr(), format+"\n", args...) }
		switch {
		case noOutput:
			say("Fire-and-forget mode (%s): stdin→serial, no output (exits at EOF)", how)
		case output == "" && !send:
			say("Reading from serial port (%s)... (Ctrl+C to exit)", how)
		case output == "":
			say("Bidirectional mode (%s): stdin→serial, serial→stdout (Ctrl+C to exit)", how)
		case !send:
			say("Logging serial output to %s (%s)... (Ctrl+C to exit)", output, how)
		default:
			say("Bidirectional mode (%s) with logging to %s... (Ctrl+C to exit)", how, output)
		}
		p := pipe{line: s, out: onlyWriter{c.OutOrStdout()}}
		if send {
			p.in = c.InOrStdin()
		}
		if noOutput {
			p.out = nil
		}
		if output != "" {
			flags := os.O_WRONLY | os.O_CREATE | os.O_TRUNC
			if appending {
				flags = os.O_WRONLY | os.O_CREATE | os.O_APPEND
			}
			f, err := os.OpenFile(output, flags, 0o666)
			if err != nil {
				return err
			}
			defer f.Close()
			p.out = onlyWriter{f}
		}
		err := p.run(c.Context())
		if err == nil && !noOutput {
			say("\nSerial connection closed normally (end of stream).")
		}
		return err
	}
	return c
}

// pipe joins a line with files. In or out may be nil.
type pipe struct {
	line *Client
	in   io.Reader
	out  io.Writer
}

// run returns at the end of the line's stream, or at the end of the input when
// there is no output.
func (p pipe) run(ctx context.Context) error {
	line, err := p.line.Connect(ctx)
	if err != nil {
		return err
	}
	defer line.Close()
	sent, heard := make(chan error, 1), make(chan error, 1)
	if p.in != nil {
		// As in a console, a read of the input may outlast this.
		go func() { sent <- p.send(line) }()
	}
	if p.out != nil {
		go func() {
			_, err := io.CopyBuffer(p.out, line, make([]byte, received))
			heard <- err
		}()
	}
	for {
		select {
		case err := <-sent:
			if err != nil || p.out == nil {
				return err
			}
		case err := <-heard:
			return err
		case <-ctx.Done():
			return ctx.Err()
		}
	}
}

// send copies the input to the line. To the line it then has its end: a line
// of the harness has none and goes on, a loop closes.
func (p pipe) send(line io.ReadWriteCloser) error {
	if _, err := io.CopyBuffer(onlyWriter{line}, p.in, make([]byte, received)); err != nil {
		return err
	}
	if half, ok := line.(interface{ CloseWrite() error }); ok {
		return half.CloseWrite()
	}
	return nil
}
