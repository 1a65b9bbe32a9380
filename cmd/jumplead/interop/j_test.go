package interop

import (
	"bufio"
	"bytes"
	"context"
	"crypto/sha256"
	"fmt"
	"io"
	"io/fs"
	"net"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"strings"
	"sync"
	"syscall"
	"testing"
	"time"

	"github.com/jumplead/jumplead/cmd/virtualdut/dut"
	"github.com/jumplead/jumplead/drivers/storage"
	"github.com/jumplead/jumplead/exporter/client"
	"github.com/jumplead/jumplead/hw/serial/pty"
)

// A bench is a virtual DUT, an exporter of ours with it, and a folder in which
// one j is run, all for one case: what a case does is seen by no other.
type bench struct {
	dir    string // of the DUT, the files node and the command
	j      string // program
	socket string
	dut    net.Conn
	ask    *bufio.Reader
}

// rail asks the DUT for its state, or tells it to change that.
func (b *bench) rail(t *testing.T, request string) string {
	t.Helper()
	b.dut.SetDeadline(time.Now().Add(20 * time.Second))
	fmt.Fprintln(b.dut, request)
	line, err := b.ask.ReadString('\n')
	if err != nil {
		t.Fatalf("DUT: %s: %v", request, err)
	}
	return line
}

const bootTime = "50ms"

func newBench(t *testing.T, program string) *bench {
	t.Helper()
	dir, err := os.MkdirTemp(scratch, "j-")
	if err != nil {
		t.Fatal(err)
	}
	b := &bench{dir: dir, j: program, socket: filepath.Join(dir, "s")}
	for _, sub := range []string{"dut", "files", "work"} {
		if err := os.Mkdir(filepath.Join(dir, sub), 0o755); err != nil {
			t.Fatal(err)
		}
	}
	if err := os.WriteFile(filepath.Join(dir, "work", "image"), []byte(image), 0o644); err != nil {
		t.Fatal(err)
	}
	at, err := freePort()
	if err != nil {
		t.Fatal(err)
	}
	ctx, cancel := context.WithCancel(context.Background())
	ready, said := io.Pipe()
	ended := make(chan int, 1)
	go func() {
		status := dut.Main(ctx, dut.Proc{
			Args: []string{"virtualdut", "--dir", filepath.Join(dir, "dut"), "--tcp", at, "--boot-time", bootTime}, Stdout: said, Stderr: io.Discard,
		})
		said.Close()
		ended <- status
	}()
	t.Cleanup(func() {
		cancel()
		<-ended
	})
	if line, err := bufio.NewReader(ready).ReadString('\n'); err != nil {
		t.Fatalf("virtual DUT: %q, %v", line, err)
	}
	if b.dut, err = net.Dial("unix", filepath.Join(dir, "dut", "control.sock")); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { b.dut.Close() })
	b.ask = bufio.NewReader(b.dut)

	text, err := os.ReadFile("testdata/j.yaml")
	if err != nil {
		t.Fatal(err)
	}
	_, port, _ := net.SplitHostPort(at)
	config := filepath.Join(dir, "j.yaml")
	text = []byte(strings.NewReplacer("$dut", filepath.Join(dir, "dut"), "$tcp", port, "$folder", filepath.Join(dir, "files")).Replace(string(text)))
	if err := os.WriteFile(config, text, 0o644); err != nil {
		t.Fatal(err)
	}
	ours, err := jumplead()
	if err != nil {
		t.Fatal(err)
	}
	p, err := ours.exporter("--exporter-config", config, "--listen", "unix:"+b.socket)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		if err := p.stop(syscall.SIGTERM); err != nil {
			t.Error(err)
		}
	})
	if err := p.ready(t.Context(), way{target: "unix:" + b.socket}); err != nil {
		t.Fatal(err)
	}
	return b
}

// image is what cases flash.
var image = strings.Repeat("an image of the DUT\n", 5000)

func (b *bench) command(ctx context.Context, args ...string) *exec.Cmd {
	cmd := exec.CommandContext(ctx, b.j, args...)
	if filepath.Base(b.j) != "j" {
		cmd.Args[0] = "j"
	}
	cmd.Dir = filepath.Join(b.dir, "work")
	cmd.Env = environment("JUMPSTARTER_HOST="+b.socket, "JMP_DRIVERS_ALLOW=UNSAFE", "COLUMNS=80")
	cmd.WaitDelay = 5 * time.Second
	return cmd
}

// flash gives the flasher something to dump.
func (b *bench) flash(t *testing.T) {
	t.Helper()
	c, err := client.Dial(t.Context(), b.socket, client.Options{})
	if err != nil {
		t.Fatal(err)
	}
	defer c.Close()
	n, err := c.Find("flasher")
	if err != nil {
		t.Fatal(err)
	}
	if err := storage.NewFlasherClient(n).Flash(t.Context(), strings.NewReader(image), ""); err != nil {
		t.Fatal(err)
	}
}

// effect is all that a command may have changed: the rail, the media, the files.
func (b *bench) effect(t *testing.T) string {
	t.Helper()
	var e strings.Builder
	rail, _, _ := strings.Cut(b.rail(t, "read"), `,"phase"`)
	side := regexp.MustCompile(`"card":"\w+"`).FindString(b.rail(t, "read"))
	fmt.Fprintln(&e, rail, side)
	ctx, cancel := context.WithTimeout(t.Context(), 30*time.Second)
	defer cancel()
	c, err := client.Dial(ctx, b.socket, client.Options{})
	if err != nil {
		t.Fatal(err)
	}
	defer c.Close()
	medium := func(name string, read func(*client.Node, io.Writer) error) {
		n, err := c.Find(name)
		if err != nil {
			t.Fatal(err)
		}
		h := sha256.New()
		if err := read(n, h); err != nil {
			fmt.Fprintf(&e, "%s: cannot be read\n", name)
			return
		}
		fmt.Fprintf(&e, "%s: %x\n", name, h.Sum(nil)[:4])
	}
	medium("mux", func(n *client.Node, w io.Writer) error { return storage.NewMuxClient(n).Read(ctx, w) }) // on the host's side
	for _, partition := range []string{"", "boot"} {
		medium("flasher", func(n *client.Node, w io.Writer) error { return storage.NewFlasherClient(n).Dump(ctx, w, partition) })
	}
	for _, sub := range []string{"files", "work", "dut/card"} {
		filepath.WalkDir(filepath.Join(b.dir, sub), func(path string, d fs.DirEntry, err error) error {
			if err != nil || !d.Type().IsRegular() {
				return nil
			}
			text, err := os.ReadFile(path)
			if err != nil {
				t.Error(err)
			}
			rel, _ := filepath.Rel(b.dir, path)
			fmt.Fprintf(&e, "%s: %d bytes %x\n", rel, len(text), sha256.Sum256(text))
			return nil
		})
	}
	return e.String()
}

// What the stock j says on standard output besides results: its log, in lines of
// which the first has the time and the others are indented as far, and the
// progress of transfers.
var aside = regexp.MustCompile(`(?m)^(\[\d\d/\d\d/\d\d \d\d:\d\d:\d\d\] | {20}|transfer |\s+k?B\s*$).*\n`)

// What differs from one run to the next.
var passing = []struct {
	is   *regexp.Regexp
	name string
}{
	{regexp.MustCompile(`127\.0\.0\.1:\d+`), "ADDRESS"},
	{regexp.MustCompile(`-([pP]) \d+`), "-$1 PORT"},
	{regexp.MustCompile(`^\d+\n`), "PORT\n"},
}

func settled(s string) string {
	s = aside.ReplaceAllString(s, "")
	for _, p := range passing {
		s = p.is.ReplaceAllString(s, p.name)
	}
	return s
}

// The stock client loses commands that it means to have: those of which the
// decorator has no parentheses, which its groups do not register.
//
// A medium that was to be flashed stays with the host when the image cannot be
// opened, so that the DUT has none. A dump that fails leaves an empty file.
const (
	unregistered = "the command is not registered"
	leavesHost   = "the medium stays with the host"
	leavesEmpty  = "an empty file is left behind"
)

// TestJ runs commands with the stock j and with ours, on exporters and DUTs that
// are the same, and compares effect, exit status and output.
func TestJ(t *testing.T) {
	env := needPython(t)
	ours, err := jumplead()
	if err != nil {
		t.Fatal(err)
	}
	table := []struct {
		args   string // separated by |
		stdin  string
		before string // what the DUT is asked for, or "flash" for the flasher
		status int
		stderr bool   // is compared as well
		defect string // of the stock j
	}{
		{args: "power", status: 1, stderr: true},
		{args: "power|--help"},
		{args: "dut|power|--help"},
		{args: "bogus", status: 1, stderr: true},
		{args: "powr", status: 1, stderr: true},
		{args: "power|on|extra", status: 1, stderr: true},
		{args: "power|on|--bad", status: 1, stderr: true},
		{args: "power|cycle|--wait|x", status: 1, stderr: true},
		{args: "power|on"},
		{args: "power|off", before: "on"},
		{args: "power|cycle|-w|0"},
		{args: "power|read"},
		{args: "dut|power|on"},

		{args: "loop|pipe", stdin: "typed\n"},
		{args: "loop|pipe|-o|log", stdin: "typed\n"},
		{args: "loop|pipe|--no-output", stdin: "typed\n"},
		{args: "loop|pipe|--append", status: 1, stderr: true},
		{args: "loop|start-console", status: 1},

		{args: "tcp|address"},
		{args: "tcp|address|--host"},
		{args: "tcp|address|--port"},
		{args: "hidden|address", status: 1, stderr: true},
		{args: "echo|address", status: 1},
		{args: "tcp|forward-tcp", status: 1, stderr: true},

		{args: "storage|host"},
		{args: "storage|off"},
		{args: "dut|storage|dut", before: "card host"},
		{args: "storage|flash|image"},
		{args: "storage|flash|missing", status: 1, defect: leavesHost},
		{args: "storage|dump|dump", before: "on"},
		{args: "flasher|flash|image"},
		{args: "flasher|flash|-t|boot:image"},
		{args: "flasher|flash", status: 1, stderr: true},
		{args: "flasher|flash|-t|bad", status: 1, stderr: true},
		{args: "flasher|flash|image|--compression|rar", status: 1, stderr: true},
		{args: "flasher|flash|image|--compression|gzip", status: 1},
		{args: "flasher|dump|dump", before: "flash"},
		{args: "flasher|dump|dump", status: 1, defect: leavesEmpty},
		{args: "mux|write-local-file|image", defect: unregistered},
		{args: "files|write-from-path|there|image", defect: unregistered},
		{args: "files|list|/", defect: unregistered},
		{args: "files|capability", defect: unregistered},

		{args: "shell|hello|-e|X=1|a|-e|b", stderr: true},
		{args: "shell|hello|-e|X", status: 1, stderr: true},
		{args: "shell|fail"},
		{args: "ssh|-v|uname|-a"},
		{args: "ssh|--direct|-l|me|uname"},
		{args: "tmt|--tmt-cmd|echo|run|provision|-h|local|plan"},
		{args: "tmt|--forward-ssh|--tmt-cmd|echo|run"},
		{args: "tmt|--tmt-cmd|no-such-program|run", status: 127},
	}
	type run struct {
		status                 int
		stdout, stderr, effect string
	}
	turn := make(chan struct{}, 4) // a Python program is busy for two seconds
	for _, c := range table {
		t.Run(strings.ReplaceAll(c.args, "|", " "), func(t *testing.T) {
			t.Parallel()
			turn <- struct{}{}
			defer func() { <-turn }()
			var runs [2]run
			for i, program := range []string{env.Bin("j"), ours.program} {
				b := newBench(t, program)
				switch c.before {
				case "":
				case "flash":
					b.flash(t)
				default:
					b.rail(t, c.before)
				}
				ctx, cancel := context.WithTimeout(t.Context(), 2*time.Minute)
				defer cancel()
				cmd := b.command(ctx, strings.Split(c.args, "|")...)
				var stdout, stderr bytes.Buffer
				cmd.Stdin, cmd.Stdout, cmd.Stderr = strings.NewReader(c.stdin), &stdout, &stderr
				if err := cmd.Run(); err != nil && cmd.ProcessState == nil {
					t.Fatal(err)
				}
				runs[i] = run{cmd.ProcessState.ExitCode(), settled(stdout.String()), settled(stderr.String()), b.effect(t)}
			}
			stock, ours := runs[0], runs[1]
			if c.defect != "" {
				t.Logf("a defect of the stock j: %s", c.defect)
			}
			if c.defect == unregistered {
				if stock.status != 1 || !strings.Contains(stock.stderr, "No such command") {
					t.Errorf("stock j = %d, %q; want the defect", stock.status, stock.stderr)
				}
				if ours.status != 0 {
					t.Errorf("j = %d, %q; want 0", ours.status, ours.stderr)
				}
				return
			}
			if stock.status != c.status || ours.status != c.status {
				t.Errorf("exit status = %d of stock, %d of ours; want %d: %s, %s", stock.status, ours.status, c.status, stock.stderr, ours.stderr)
			}
			if stock.stdout != ours.stdout {
				t.Errorf("output of ours = %q; want the stock j's, %q", ours.stdout, stock.stdout)
			}
			if c.stderr && stock.stderr != ours.stderr {
				t.Errorf("standard error of ours = %q; want the stock j's, %q", ours.stderr, stock.stderr)
			}
			if c.defect != "" {
				if stock.effect == ours.effect {
					t.Errorf("effects are the same, and stock has no defect:\n%s", stock.effect)
				}
			} else if stock.effect != ours.effect {
				t.Errorf("effect of ours:\n%s\nwant the stock j's:\n%s", ours.effect, stock.effect)
			}
		})
	}
}

// TestJStays is for commands that go on until they are ended: what they do
// meanwhile is the same with both.
func TestJStays(t *testing.T) {
	env := needPython(t)
	ours, err := jumplead()
	if err != nil {
		t.Fatal(err)
	}
	for name, program := range map[string]string{"stock": env.Bin("j"), "ours": ours.program} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			b := newBench(t, program)
			b.rail(t, "on")
			for !strings.Contains(b.rail(t, "read"), `"phase":"up"`) { // its page is served then
				if t.Context().Err() != nil {
					t.Fatal("the DUT does not boot")
				}
			}
			b.forward(t, "tcp", "tcp", "forward-tcp", "0")
			b.forward(t, "unix", "tcp", "forward-unix", filepath.Join(b.dir, "f"))
			b.listens(t)
			b.console(t)
		})
	}
}

// forward fetches the DUT's page through a forwarded port or socket.
func (b *bench) forward(t *testing.T, network string, args ...string) {
	t.Helper()
	cmd := b.command(t.Context(), args...)
	out, err := cmd.StdoutPipe()
	if err != nil {
		t.Fatal(err)
	}
	if err := cmd.Start(); err != nil {
		t.Fatal(err)
	}
	defer cmd.Wait()
	defer cmd.Process.Kill() // an interrupt does not end the stock j
	line, err := bufio.NewReader(out).ReadString('\n')
	if err != nil {
		t.Fatalf("j %q: %v", args, err)
	}
	c, err := net.Dial(network, strings.TrimSpace(line))
	if err != nil {
		t.Fatalf("j %q says %q: %v", args, line, err)
	}
	defer c.Close()
	c.SetDeadline(time.Now().Add(30 * time.Second))
	fmt.Fprintf(c, "GET / HTTP/1.0\r\n\r\n")
	if page, err := io.ReadAll(c); err != nil || !strings.HasPrefix(string(page), "HTTP/1.0 200") {
		t.Errorf("page through %q = %.60q, %v; want the DUT's", args, page, err)
	}
}

// listens sees the DUT boot through `serial pipe`.
func (b *bench) listens(t *testing.T) {
	t.Helper()
	cmd := b.command(t.Context(), "serial", "pipe", "--no-input")
	out, err := cmd.StdoutPipe()
	if err != nil {
		t.Fatal(err)
	}
	if err := cmd.Start(); err != nil {
		t.Fatal(err)
	}
	defer cmd.Wait()
	defer cmd.Process.Kill()
	b.until(t, out, "dut# ", func() {
		b.rail(t, "off")
		b.rail(t, "on")
	})
}

// until reads up to a text, and does something every now and then until it is
// there: what is said before somebody listens is lost.
func (b *bench) until(t *testing.T, r io.Reader, text string, again func()) {
	t.Helper()
	found := make(chan error, 1)
	var mu sync.Mutex
	var seen []byte
	go func() {
		buf := make([]byte, 4096)
		for {
			n, err := r.Read(buf)
			mu.Lock()
			seen = append(seen, buf[:n]...)
			there := bytes.Contains(seen, []byte(text))
			mu.Unlock()
			if there || err != nil {
				if there {
					err = nil
				}
				found <- err
				return
			}
		}
	}()
	tick := time.NewTicker(2 * time.Second)
	defer tick.Stop()
	for deadline := time.After(time.Minute); ; {
		select {
		case err := <-found:
			if err != nil {
				mu.Lock()
				defer mu.Unlock()
				t.Errorf("%q does not come: %v, after %q", text, err, seen)
			}
			return
		case <-tick.C:
			again()
		case <-deadline:
			mu.Lock()
			defer mu.Unlock()
			t.Fatalf("%q does not come within a minute, after %q", text, seen)
		}
	}
}

// console types into the DUT's shell on a terminal, and leaves with ctrl-B.
func (b *bench) console(t *testing.T) {
	t.Helper()
	master, slave, err := pty.Open()
	if err != nil {
		t.Fatal(err)
	}
	defer master.Close()
	cmd := b.command(t.Context(), "dut", "console", "start-console")
	if err := syscall.SetNonblock(int(slave.Fd()), false); err != nil { // as terminals are; Python takes no data for the end
		t.Fatal(err)
	}
	var stderr bytes.Buffer
	cmd.Stdin, cmd.Stdout, cmd.Stderr = slave, slave, &stderr
	if err := cmd.Start(); err != nil {
		t.Fatal(err)
	}
	defer cmd.Process.Kill()
	slave.Close()
	b.until(t, master, "exit with CTRL+B x 3 times", func() {})
	// What is typed before the line is open may be lost.
	b.until(t, master, "\r\nsaid  so\r\n", func() { master.Write([]byte("\recho said  so\r")) })
	master.Write([]byte("\x02\x02\x02"))
	go io.Copy(io.Discard, master)
	if err := cmd.Wait(); err != nil {
		t.Errorf("console = %v, %s; want it ended in order", err, &stderr)
	}
}
