package app_test

import (
	"bufio"
	"bytes"
	"context"
	"encoding/json"
	"fmt"
	"io"
	"net"
	"net/http"
	"net/http/httptest"
	"net/url"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/coder/websocket"
	"github.com/jumplead/jumplead/cmd/jumplead/app"
	"github.com/jumplead/jumplead/drivers/all"
	"github.com/jumplead/jumplead/drivers/driver/drivertest"
)

// harness has a node of every client class. FOLDER, PORT and IMAGES are filled in.
const harness = `
apiVersion: jumpstarter.dev/v1alpha1
kind: ExporterConfig
metadata: {namespace: default, name: bench}
description: a bench to try j on
export:
  power:
    type: jumpstarter_driver_power.driver.MockPower
    description: the supply
    methods_description: {"on": Lets the current flow}
  serial: {type: jumpstarter_driver_pyserial.driver.PySerial, config: {url: "loop://"}}
  echo: {type: jumpstarter_driver_network.driver.EchoNetwork}
  tcp: {type: jumpstarter_driver_network.driver.TcpNetwork, config: {host: 127.0.0.1, port: 7777}}
  hidden: {type: jumpstarter_driver_network.driver.TcpNetwork, config: {host: 127.0.0.1, port: 7777, enable_address: false}}
  mux: {type: jumpstarter_driver_opendal.driver.MockStorageMux}
  card: {type: jumpstarter_driver_opendal.driver.MockStorageMuxFlasher}
  flasher: {type: jumpstarter_driver_opendal.driver.MockFlasher}
  files: {type: jumpstarter_driver_opendal.driver.Opendal, config: {scheme: fs, kwargs: {root: FOLDER}}}
  shell:
    type: jumpstarter_driver_shell.driver.Shell
    config:
      methods:
        hello: {command: 'echo "hello $* $X"; echo oops >&2', description: Greets}
        fail: exit 3
        two words: echo "$0"
        killed: kill -9 $$
  ssh:
    type: jumpstarter_driver_ssh.driver.SSHWrapper
    config: {default_username: root, ssh_command: "sh -c 'cat \"$2\"; echo \"$@\"' ssh", ssh_identity: "the key\n"}
    children: {tcp: {ref: hidden}}
  login:
    type: jumpstarter_driver_ssh.driver.SSHWrapper
    config: {default_username: root, ssh_command: echo ssh}
    children: {tcp: {ref: tcp}}
  screen: {type: jumpstarter_driver_vnc.driver.Vnc, children: {tcp: {ref: echo}}}
  tmt:
    type: jumpstarter_driver_tmt.driver.TMT
    config: {reboot_cmd: j power cycle, default_username: root, default_password: secret}
    children: {ssh: {ref: tcp}}
  dut:
    children:
      power: {ref: power}
      "main rail": {ref: power}
      help: {ref: power}
`

// A bench is an exporter that j can be run on.
type bench struct {
	t      *testing.T
	folder string // of the node files
	env    []string
}

func newBench(t *testing.T) *bench {
	t.Helper()
	b := &bench{t: t, folder: t.TempDir()}
	dir, err := os.MkdirTemp("", "j-") // its name is short enough for a socket
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { os.RemoveAll(dir) })
	socket := filepath.Join(dir, "socket")
	config := file(t, "bench.yaml", strings.ReplaceAll(harness, "FOLDER", b.folder))
	start(t, nil, "--exporter-config", config, "--listen", "unix:"+socket)
	b.env = []string{"JUMPSTARTER_HOST=" + socket, "JMP_DRIVERS_ALLOW=UNSAFE", "PATH=" + os.Getenv("PATH")}
	drivertest.Until(t, "an exporter on "+socket, func() bool {
		c, err := net.Dial("unix", socket)
		if err == nil {
			c.Close()
		}
		return err == nil
	})
	return b
}

// run runs j with arguments until it ends.
func (b *bench) run(stdin string, args ...string) result {
	b.t.Helper()
	ctx, cancel := context.WithTimeout(b.t.Context(), time.Minute)
	defer cancel()
	var stdout, stderr buffer
	status := app.Main(ctx, app.Proc{
		Args: append([]string{"/somewhere/j"}, args...), Env: b.env, Commands: all.Commands(),
		Stdin: strings.NewReader(stdin), Stdout: &stdout, Stderr: &stderr,
	}, all.Specs()...)
	return result{status, stdout.String(), stderr.String()}
}

// start runs j in the background, and returns its output and what ends it.
func (b *bench) start(stdin io.Reader, args ...string) (stdout *bufio.Reader, stop func() result) {
	b.t.Helper()
	ctx, cancel := context.WithCancel(b.t.Context())
	r, w := io.Pipe()
	var stderr buffer
	done := make(chan int, 1)
	go func() {
		status := app.Main(ctx, app.Proc{
			Args: append([]string{"j"}, args...), Env: b.env, Commands: all.Commands(), Stdin: stdin, Stdout: w, Stderr: &stderr,
		}, all.Specs()...)
		w.Close()
		done <- status
	}()
	return bufio.NewReader(r), func() result {
		cancel()
		rest, _ := io.ReadAll(r)
		return result{<-done, string(rest), stderr.String()}
	}
}

const helpOfPower = `Usage: j power [OPTIONS] COMMAND [ARGS]...

  the supply

Options:
  --help  Show this message and exit.

Commands:
  cycle  Power cycle
  off    Power off
  on     Lets the current flow
  read   Read power measurements
`

const readings = `voltage=0.0 V  current=0.0 A  apparent_power=0.0 VA
voltage=5.0 V  current=2.0 A  apparent_power=10.0 VA
`

func usageOf(command, text string) string {
	path, _, _ := strings.Cut(command, " [")
	return "Usage: " + command + "\nTry '" + path + " --help' for help.\n\nError: " + text + "\n"
}

// What scripts see: standard output and status to the letter, standard error
// where it is told.
func TestJ(t *testing.T) {
	b := newBench(t)
	image := file(t, "image", strings.Repeat("0123456789", 10000))
	missing := filepath.Join(t.TempDir(), "missing")
	for _, test := range []struct {
		args   string // separated by |
		status int
		stdout string
		stderr string // "..." stands for anything
	}{
		{"power", 1, "", helpOfPower},
		{"power|--help", 0, helpOfPower, ""},
		{"bogus|--x", 1, "", usageOf("j [OPTIONS] COMMAND [ARGS]...", "No such command 'bogus'.")},
		{"powr", 1, "", usageOf("j [OPTIONS] COMMAND [ARGS]...", "No such command 'powr'. Did you mean 'power'?")},
		{"--bogus", 1, "", usageOf("j [OPTIONS] COMMAND [ARGS]...", "No such option '--bogus'.")},
		{"--log-level|LOUD|power|on", 1, "", usageOf("j [OPTIONS] COMMAND [ARGS]...", "Invalid value for '--log-level': 'LOUD' is not one of 'DEBUG', 'INFO', 'WARNING', 'ERROR', 'CRITICAL'.")},
		{"power|on", 0, "", ""},
		{"power|off", 0, "", ""},
		{"dut|power|on", 0, "", ""},
		{"dut|main rail|on", 0, "", ""},
		{"dut|help|on", 0, "", ""},
		{"help|power", 0, helpOfPower, ""},
		{"dut|--log-level|DEBUG|power|on", 0, "", ""},
		{"power|on|extra|more", 1, "", usageOf("j power on [OPTIONS]", "Got unexpected extra arguments (extra more)")},
		{"power|on|--bad", 1, "", usageOf("j power on [OPTIONS]", "No such option '--bad'.")},
		{"power|cycle|--wiat|1", 1, "", usageOf("j power cycle [OPTIONS]", "No such option '--wiat'. Did you mean '--wait'?")},
		{"power|cycle|-w|x", 1, "", usageOf("j power cycle [OPTIONS]", "Invalid value for '--wait' / '-w': 'x' is not a valid integer.")},
		{"power|cycle|--wait", 1, "", usageOf("j power cycle [OPTIONS]", "Option '--wait' requires an argument.")},
		{"power|cycle|-w|-1", 1, "", usageOf("j power cycle [OPTIONS]", "Invalid value for '--wait' / '-w': -1 is below 0.")},
		{"power|-h", 1, "", usageOf("j power [OPTIONS] COMMAND [ARGS]...", "No such option '-h'. Did you mean '--help'?")},
		{"power|--on", 1, "", usageOf("j power [OPTIONS] COMMAND [ARGS]...", "No such option '--on'.")},
		{"--|dut|power|on", 0, "", ""},
		{"dut|--|main rail|on", 0, "", ""},
		{"power|--|cycle|--wait=0", 0, "Power cycling with 0 seconds wait time...\n", ""},
		{"power|--|bogus", 1, "", usageOf("j power [OPTIONS] COMMAND [ARGS]...", "No such command 'bogus'.")},
		{"power|cycle|--wait=0", 0, "Power cycling with 0 seconds wait time...\n", ""},
		{"power|read", 0, readings, ""},
		{"power|read|-n|2|-i|0", 0, readings + readings, ""},
		{"power|read|--json", 0, `{"voltage":0,"current":0}` + "\n" + `{"voltage":5,"current":2}` + "\n", ""},
		{"--json|power|read", 0, `{"voltage":0,"current":0}` + "\n" + `{"voltage":5,"current":2}` + "\n", ""},

		{"serial|start-console", 1, "\nStarting serial port console ... exit with CTRL+B x 3 times\n\n", "Error: a console needs a terminal..."},
		{"serial|pipe", 0, "typed\n", "Bidirectional mode (auto-detected piped stdin): stdin→serial, serial→stdout (Ctrl+C to exit)\n\nSerial connection closed normally (end of stream).\n"},
		{"serial|pipe|--no-output", 0, "", "Fire-and-forget mode (auto-detected piped stdin): stdin→serial, no output (exits at EOF)\n"},
		{"serial|pipe|-i|--no-input", 1, "", usageOf("j serial pipe [OPTIONS]", "Cannot use both --input and --no-input")},
		{"serial|pipe|-o|x|--no-output", 1, "", usageOf("j serial pipe [OPTIONS]", "Cannot use both --no-output and --output")},
		{"serial|pipe|--no-output|-a", 1, "", usageOf("j serial pipe [OPTIONS]", "Cannot use both --no-output and --append")},
		{"serial|pipe|-a", 1, "", usageOf("j serial pipe [OPTIONS]", "--append requires --output")},
		{"serial|pipe|--no-output|--no-input", 1, "", usageOf("j serial pipe [OPTIONS]", "--no-output requires stdin input (pipe stdin or use --input)")},

		{"tcp|address", 0, "127.0.0.1:7777\n", ""},
		{"tcp|address|--host", 0, "127.0.0.1\n", ""},
		{"tcp|address|--port", 0, "7777\n", ""},
		{"tcp|address|--host|--port", 0, "127.0.0.1:7777\n", ""},
		{"tcp|address|--json", 0, `{"url":"tcp://127.0.0.1:7777","host":"127.0.0.1","port":"7777"}` + "\n", ""},
		{"hidden|address", 1, "", "Error: enable_address mode is not true in the exporter configuration: DriverCall 'address' failed with gRPC INVALID_ARGUMENT: enable_address mode is not true in the exporter configuration\n"},
		{"echo|address", 1, "", "Error: this driver tells no address..."},
		{"tcp|forward-tcp", 1, "", usageOf("j tcp forward-tcp [OPTIONS] PORT", "Missing argument 'PORT'.")},
		{"tcp|forward-tcp|x", 1, "", usageOf("j tcp forward-tcp [OPTIONS] PORT", "Invalid value for 'PORT': 'x' is not a valid integer.")},

		{"mux|dut", 0, "", ""},
		{"mux|write-local-file|" + image, 1, "", "Error: upload: DriverCall 'write' failed..."},
		{"mux|host", 0, "", ""},
		{"mux|write-local-file|" + image, 0, "", ""},
		{"mux|off", 0, "", ""},
		{"card|flash|" + missing, 1, "", "Error: open " + missing + "..."},
		{"card|flash|-t|a:" + image, 1, "", "Error: a: ..."},
		{"card|dump|" + missing + "|--target|a", 1, "", "Error: ..."},
		{"flasher|flash", 1, "", "Error: FILE argument is required unless --target/-t is used\n"},
		{"flasher|flash|-t|bad", 1, "", "Error: Invalid target spec 'bad', expected name:file\n"},
		{"flasher|flash|" + image + "|--compression|foo", 1, "", usageOf("j flasher flash [OPTIONS] [FILE]...", "Invalid value for '--compression': 'foo' is not one of 'gzip', 'xz', 'bz2', 'zstd'.")},
		{"flasher|flash|" + image + "|--compression|gzip", 1, "", "Error: upload: DriverCall 'flash' failed with gRPC..."}, // it is not packed
		{"flasher|dump", 1, "", usageOf("j flasher dump [OPTIONS] FILE", "Missing argument 'FILE'.")},
		{"flasher|dump|" + missing + "|--target|none", 1, "", "Error: ..."},

		{"files|write-bytes|dir/typed", 0, "", ""},
		{"files|read-bytes|dir/typed", 0, "typed\n", ""},
		{"files|write-from-path|image|" + image, 0, "", ""},
		{"files|hash|dir/typed", 0, "04af3840888d59214ae722512bb8cb2e0e7e5ecb530137a0ebeab0eca633d6f4\n", ""},
		{"files|hash|dir/typed|--algo|md5", 0, "08631717705a8d9c08ec6b43001dc749\n", ""},
		{"files|hash|image|--algo|crc", 1, "", usageOf("j files hash [OPTIONS] PATH", "Invalid value for '--algo': 'crc' is not one of 'md5', 'sha256'.")},
		{"files|stat|image", 0, "{\n  \"content_disposition\": null,\n  \"content_length\": 100000,\n  \"content_md5\": null,\n  \"content_type\": null,\n" +
			"  \"etag\": null,\n  \"mode\": {\n    \"is_file\": true,\n    \"is_dir\": false\n  }\n}\n", ""},
		{"files|exists|image", 0, "", ""},
		{"files|exists|nothing", 1, "", "Error: path nothing does not exist\n"},
		{"files|copy|image|copy", 0, "", ""},
		{"files|rename|copy|moved", 0, "", ""},
		{"files|create-dir|empty/", 0, "", ""},
		{"files|create-dir|empty", 1, "", "Error: DriverCall 'create_dir' failed with gRPC UNKNOWN..."},
		{"files|list|dir/", 0, "dir/\ndir/typed\n", ""},
		{"files|scan|dir/", 0, "dir/typed\ndir/\n", ""},
		{"files|list|dir/|--json", 0, "\"dir/\"\n\"dir/typed\"\n", ""},
		{"files|delete|moved", 0, "", ""},
		{"files|remove-all|dir/", 0, "", ""},
		{"files|exists|dir/typed", 1, "", "Error: path dir/typed does not exist\n"},
		{"files|presign-read|image", 1, "", usageOf("j files presign-read [OPTIONS] PATH", "Missing option '--expire-second'.")},
		{"files|presign-stat|image|--expire-second|3", 1, "", "Error: DriverCall 'presign_stat' failed..."},
		{"files|presign-write|image|--expire-second|x", 1, "", usageOf("j files presign-write [OPTIONS] PATH", "Invalid value for '--expire-second': 'x' is not a valid integer.")},
		{"files|copy|a", 1, "", usageOf("j files copy [OPTIONS] SOURCE TARGET", "Missing argument 'TARGET'.")},

		{"shell|hello|a", 0, "hello a \n", "oops\n"},
		{"shell|hello|--unknown|-e|X=1|b|-e|c", 0, "hello --unknown b -e c 1\n", "oops\n"},
		{"shell|hello|--env=X=2", 0, "hello  2\n", "oops\n"},
		{"shell|hello|--|-e", 0, "hello -e \n", "oops\n"},
		{"shell|hello|-e|X", 1, "", usageOf("j shell hello [OPTIONS] [ARGS]...", "Invalid value: Invalid --env value 'X'. Use KEY=VALUE.")},
		{"shell|hello|-e", 1, "", usageOf("j shell hello [OPTIONS] [ARGS]...", "Option '-e' requires an argument.")},
		{"shell|hello|-e|PATH=x", 1, "", "Error: ..."},
		{"shell|fail", 0, "", ""},
		{"shell|two words", 0, "two words\n", ""},
		{"shell|fail|--exit-status", 3, "", ""},
		{"shell|killed|--exit-status", 137, "", ""},
		{"shell|bogus", 1, "", usageOf("j shell [OPTIONS] COMMAND [ARGS]...", "No such command 'bogus'.")},
		{"--json|shell|fail", 0, `{"exit_status":3}` + "\n", ""},

		{"login|--direct|-v|-l|me|uname", 0, "ssh -p 7777 -v -l me 127.0.0.1 uname\n", ""},
		{"login|--direct|ls|--json", 0, "ssh -p 7777 -l root 127.0.0.1 ls --json\n", ""},
		{"tmt|--tmt-cmd|echo|run|-a", 0, "run -a provision -h connect -g 127.0.0.1 -P 7777 -u root -p secret --feeling-safe --hard-reboot j power cycle\n", ""},
		{"tmt|--tmt-cmd=echo|--tmt-username|me|plans|ls", 0, "plans ls\n", ""},
		{"tmt|--tmt-cmd|no-such-program|run", 127, "", "Error: exec: \"no-such-program\"..."},
		{"tmt|--tmt-cmd|false|run", 1, "", ""},
		{"tmt|--tmt-on-exporter", 1, "TMT will be run on the exporter\n", "Error: ..."},
	} {
		got := b.run("typed\n", strings.Split(test.args, "|")...)
		said := got.stderr == test.stderr
		if want, ok := strings.CutSuffix(test.stderr, "..."); ok {
			said = strings.HasPrefix(got.stderr, want)
		}
		if got.status != test.status || got.stdout != test.stdout || !said {
			t.Errorf("j %s = %d, stdout %q, stderr %q; want %d, %q, %q",
				strings.ReplaceAll(test.args, "|", " "), got.status, got.stdout, got.stderr, test.status, test.stdout, test.stderr)
		}
	}
}

// What was flashed can be dumped, packed or not, and a file is whole or not there.
func TestJImages(t *testing.T) {
	b := newBench(t)
	text := strings.Repeat("an image\n", 50000)
	image, dump := file(t, "image", text), filepath.Join(t.TempDir(), "dump")
	served := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) { io.WriteString(w, text) }))
	defer served.Close()
	ok := func(args ...string) {
		t.Helper()
		if got := b.run("", args...); got.status != 0 || got.stdout != "" {
			t.Fatalf("j %q = %d, %q, %q; want 0 and nothing", args, got.status, got.stdout, got.stderr)
		}
	}
	for _, flash := range [][]string{
		{"card", "flash", image},
		{"card", "flash", served.URL + "/image"},
		{"flasher", "flash", image},
		{"flasher", "flash", "-t", "default:" + image, "-t", "boot:" + image},
		{"flasher", "flash", served.URL + "/image"},
	} {
		ok(flash...)
		os.Remove(dump)
		ok(flash[0], "dump", dump)
		if got, err := os.ReadFile(dump); string(got) != text {
			t.Errorf("%q and dump = %d bytes, %v; want %d", flash, len(got), err, len(text))
		}
	}
	for _, codec := range []string{"gzip", "xz", "bz2", "zstd"} {
		ok("flasher", "dump", dump, "--compression", codec)
		packed, err := os.ReadFile(dump)
		if err != nil || len(packed) > len(text)/10 {
			t.Errorf("dump --compression %s = %d bytes, %v; want them packed", codec, len(packed), err)
		}
		ok("flasher", "flash", "-t", codec+":"+dump, "--compression", strings.ToUpper(codec))
		os.Remove(dump)
		ok("flasher", "dump", dump, "--target", codec)
		if got, err := os.ReadFile(dump); string(got) != text {
			t.Errorf("dump of what was flashed with %s = %d bytes, %v; want %d", codec, len(got), err, len(text))
		}
	}
	ok("files", "write-from-path", "there", served.URL+"/image")
	ok("files", "read-into-path", "there", dump)
	if got, err := os.ReadFile(dump); string(got) != text {
		t.Errorf("read-into-path = %d bytes, %v; want %d", len(got), err, len(text))
	}
	ok("files", "read-into-path", "there", os.DevNull)

	nowhere := filepath.Join(t.TempDir(), "dump")
	if got := b.run("", "files", "read-into-path", "nothing", nowhere); got.status != 1 {
		t.Errorf("read-into-path of nothing = %d; want 1", got.status)
	}
	if left, err := os.ReadDir(filepath.Dir(nowhere)); err != nil || len(left) > 0 {
		t.Errorf("files after a failure = %v, %v; want none", left, err)
	}
}

func TestJForward(t *testing.T) {
	b := newBench(t)
	path := filepath.Join(t.TempDir(), "s")
	for _, test := range [][]string{
		{"echo", "forward-tcp", "0"},
		{"echo", "forward-tcp", "--address", "127.0.0.1", "0"},
		{"echo", "forward-unix", path},
		{"echo", "forward-unix"},
	} {
		out, stop := b.start(nil, test...)
		line, err := out.ReadString('\n')
		if err != nil {
			t.Fatalf("j %q: %v: %v", test, err, stop())
		}
		network, at := "tcp", strings.TrimSpace(line)
		if strings.Contains(at, "/") {
			network = "unix"
		}
		c, err := net.Dial(network, at)
		if err != nil {
			t.Fatalf("j %q says %s: %v", test, at, err)
		}
		if got := drivertest.Exchange(t, c, "hello"); got != "hello" {
			t.Errorf("Exchange(hello) through %q = %q; want the same", test, got)
		}
		c.Close()
		if got := stop(); got.status != 2 {
			t.Errorf("j %q, interrupted = %d, %q; want 2", test, got.status, got.stderr)
		}
		if _, err := os.Stat(at); network == "unix" && err == nil {
			t.Errorf("%s is there after j %q; want it removed", at, test)
		}
	}
}

// The key is there, for its owner only, while ssh runs.
func TestJSSH(t *testing.T) {
	b := newBench(t)
	got := b.run("", "ssh", "-v", "ls", "/")
	words := strings.Fields(strings.TrimPrefix(got.stdout, "the key\n"))
	// sh -c '...' ssh -i FILE -p PORT -l root -v 127.0.0.1 ls /
	if len(words) != 10 || words[0] != "-i" || words[2] != "-p" || strings.Join(words[4:], " ") != "-l root -v 127.0.0.1 ls /" {
		t.Fatalf("j ssh -v ls / = %d, %q, %q; want the key and ssh's arguments", got.status, got.stdout, got.stderr)
	}
	if _, err := os.Stat(words[1]); err == nil {
		t.Errorf("%s is still there; want the key removed", words[1])
	}
}

func TestJVNC(t *testing.T) {
	b := newBench(t)
	out, stop := b.start(nil, "screen", "session", "--no-browser", "--encrypt")
	line, err := out.ReadString('\n')
	text, ok := strings.CutPrefix(line, "To connect, please visit: ")
	u, uerr := url.Parse(strings.TrimSpace(text))
	if next, err := out.ReadString('\n'); next != "Press Ctrl+C to close the VNC session.\n" {
		t.Errorf("second line = %q, %v; want how to end it", next, err)
	}
	if err != nil || !ok || uerr != nil {
		t.Fatalf("j screen session: %q, %v, %v, %v", line, err, uerr, stop())
	}
	q := u.Query()
	if u.Host != "novnc.com" || q.Get("encrypt") != "1" || q.Get("autoconnect") != "1" {
		t.Errorf("page = %s; want noVNC's", u)
	}
	at := "ws://" + net.JoinHostPort(q.Get("host"), q.Get("port"))
	ctx, cancel := context.WithTimeout(t.Context(), 30*time.Second)
	defer cancel()
	dial := func(origin string) (*websocket.Conn, error) {
		c, _, err := websocket.Dial(ctx, at, &websocket.DialOptions{Subprotocols: []string{"binary"}, HTTPHeader: http.Header{"Origin": {origin}}})
		return c, err
	}
	if c, err := dial("https://evil.example"); err == nil {
		c.CloseNow()
		t.Error("a page of another site connects; want it refused")
	}
	c, err := dial("https://novnc.com")
	if err != nil {
		t.Fatal(err)
	}
	if err := c.Write(ctx, websocket.MessageBinary, []byte("RFB 003.008\n")); err != nil {
		t.Fatal(err)
	}
	if _, got, err := c.Read(ctx); string(got) != "RFB 003.008\n" || err != nil {
		t.Errorf("Read() = %q, %v; want what was written", got, err)
	}
	c.CloseNow()
	if got := stop(); got.status != 2 || !strings.Contains(got.stdout, "Closing VNC session.") {
		t.Errorf("j screen session, interrupted = %d, %q, %q; want 2 and a farewell", got.status, got.stdout, got.stderr)
	}
}

func TestJPipe(t *testing.T) {
	b := newBench(t)
	log := filepath.Join(t.TempDir(), "log")
	for _, test := range []struct{ option, want string }{{"-o", "one\n"}, {"-ao", "one\none\n"}, {"-o", "one\n"}} {
		if got := b.run("one\n", "serial", "pipe", test.option, log); got.status != 0 || got.stdout != "" {
			t.Errorf("j serial pipe %s = %d, %q, %q; want 0 and no output", test.option, got.status, got.stdout, got.stderr)
		}
		if got, err := os.ReadFile(log); string(got) != test.want {
			t.Errorf("log after pipe %s = %q, %v; want %q", test.option, got, err, test.want)
		}
	}
	// What comes is written at once, and the end of the input is not the end.
	in, typed := io.Pipe()
	out, stop := b.start(in, "serial", "pipe")
	fmt.Fprint(typed, "now\n")
	if line, err := out.ReadString('\n'); line != "now\n" {
		t.Errorf("output = %q, %v; want now", line, err)
	}
	typed.Close()
	if got := stop(); got.status == 1 {
		t.Errorf("j serial pipe, interrupted = %d, %q", got.status, got.stderr)
	}
	_, stop = b.start(strings.NewReader(""), "serial", "pipe", "--no-input")
	if got := stop(); got.status != 2 {
		t.Errorf("j serial pipe --no-input, interrupted = %d, %q; want 2", got.status, got.stderr)
	}
}

func TestJCompletion(t *testing.T) {
	b := newBench(t)
	for args, want := range map[string]string{
		"":                             "card completion dut echo files flasher",
		"po":                           "power",
		"dut ":                         "help main\u00a0rail power",
		"power ":                       "cycle off on read",
		"dut power o":                  "off on",
		"shell ":                       "fail hello killed two\u00a0words",
		"shell h":                      "hello",
		"power cycle --w":              "--wait",
		"flasher flash --comp":         "--compression",
		"flasher flash --compression ": "gzip xz bz2 zstd",
		"--log-level ":                 "DEBUG INFO",
	} {
		words := strings.Split(args, " ")
		got := b.run("", append([]string{"__complete"}, words...)...)
		var names []string
		for line := range strings.Lines(got.stdout) {
			if name, _, _ := strings.Cut(strings.TrimSpace(line), "\t"); !strings.HasPrefix(name, ":") {
				names = append(names, name)
			}
		}
		if said := strings.Join(names, " "); got.status != 0 || !strings.HasPrefix(said, want) {
			t.Errorf("completions of %q = %d, %s; want %s", args, got.status, said, want)
		}
	}
	// The last line tells the shell whether files are a choice as well.
	for args, want := range map[string]string{
		"": ":4", "bogus ": ":4", "power on ": ":4", "tcp forward-tcp ": ":4", "card dump ": ":0", "shell hello ": ":0",
	} {
		got := b.run("", append([]string{"__complete"}, strings.Split(args, " ")...)...)
		if lines := strings.Split(strings.TrimSpace(got.stdout), "\n"); lines[len(lines)-1] != want {
			t.Errorf("completions of %q = %q; want them to end with %s", args, got.stdout, want)
		}
	}
	b.env = nil
	for _, shell := range []string{"bash", "zsh", "fish", "powershell"} {
		if got := b.run("", "completion", shell); got.status != 0 || !strings.Contains(got.stdout, "__complete") {
			t.Errorf("j completion %s = %d, %.60q, %q; want a script", shell, got.status, got.stdout, got.stderr)
		}
	}
	if got := b.run("", "__complete", ""); got.status != 0 || got.stdout+got.stderr != "" {
		t.Errorf("j __complete without a shell = %d, %q, %q; want nothing", got.status, got.stdout, got.stderr)
	}
}

// An exporter that cannot be reached is told at once, and classes that are not
// known where they are used.
func TestJCannot(t *testing.T) {
	b := newBench(t)
	reachable := b.env
	for env, want := range map[string]string{
		"":                                 "JUMPSTARTER_HOST not set",
		"JUMPSTARTER_HOST=/nowhere/socket": "did not respond",
		"JMP_GRPC_INSECURE=1 JUMPSTARTER_HOST=" + port(t):                        "did not respond",
		"JUMPSTARTER_GRPC_INSECURE=1 JUMPSTARTER_HOST=x.test:":                   "did not respond",
		"JUMPSTARTER_HOST=127.0.0.1:1 GRPC_DEFAULT_SSL_ROOTS_FILE_PATH=/nowhere": "/nowhere",
	} {
		b.env = strings.Fields(env)
		if got := b.run("", "power", "on"); got.status != 1 || !strings.HasPrefix(got.stderr, "Error: ") || !strings.Contains(got.stderr, want) {
			t.Errorf("j with %s = %d, %q; want 1, %q", env, got.status, got.stderr, want)
		}
	}
	var stdout, stderr bytes.Buffer
	commands := all.Commands()
	delete(commands, "jumpstarter_driver_power.client.PowerClient")
	run := func(args ...string) int {
		stdout.Reset()
		stderr.Reset()
		return app.Main(t.Context(), app.Proc{Args: append([]string{"jumplead", "j"}, args...), Env: reachable, Commands: commands, Stdout: &stdout, Stderr: &stderr})
	}
	if status := run("power", "on", "--x"); status != 1 || !strings.Contains(stderr.String(), `"jumpstarter_driver_power.client.PowerClient"`) {
		t.Errorf("j power on of an unknown class = %d, %q; want 1 and the class", status, &stderr)
	}
	if status := run("--help"); status != 0 || !strings.Contains(stdout.String(), "  power       (no commands for the client class") {
		t.Errorf("j --help with an unknown class = %d, %q; want it listed as that", status, &stdout)
	}
	if status := run("mux", "host"); status != 0 {
		t.Errorf("j mux host beside an unknown class = %d, %q; want 0", status, &stderr)
	}
}

// Every client class that a driver reports has commands.
func TestEveryClassHasCommands(t *testing.T) {
	commands := all.Commands()
	for _, s := range all.Specs() {
		if commands[s.Contract.Client] == nil {
			t.Errorf("%s: no commands for its client class %s", s.Type, s.Contract.Client)
		}
	}
}

// JSON lines are JSON, each of them.
func TestJJSON(t *testing.T) {
	b := newBench(t)
	for _, args := range []string{"power read", "tcp address", "files capability", "files list /", "shell hello x", "power on"} {
		got := b.run("", append([]string{"--json"}, strings.Fields(args)...)...)
		if got.status != 0 {
			t.Errorf("j --json %s = %d, %q; want 0", args, got.status, got.stderr)
		}
		for line := range strings.Lines(got.stdout) {
			if !json.Valid([]byte(line)) {
				t.Errorf("j --json %s says %q; want JSON", args, line)
			}
		}
	}
}

// Over TCP there is TLS, and roots come from where the stock client looks for
// them.
func TestJTLS(t *testing.T) {
	addr := port(t)
	cert, key, _ := certificate(t)
	log := start(t, nil, "--exporter-config", file(t, "bench.yaml", small), "--tls-grpc-listener", addr, "--tls-cert", cert, "--tls-key", key, "--passphrase", "sesame")
	drivertest.Until(t, "an exporter", func() bool { return strings.Contains(log.String(), "serving") })
	plain := port(t)
	log = start(t, nil, "--exporter-config", file(t, "bench.yaml", small), "--tls-grpc-listener", plain, "--tls-grpc-insecure")
	drivertest.Until(t, "an exporter without TLS", func() bool { return strings.Contains(log.String(), "serving") })
	for _, test := range []struct {
		env    string
		status int
		want   string
	}{
		{"GRPC_DEFAULT_SSL_ROOTS_FILE_PATH=" + cert + " JMP_GRPC_PASSPHRASE=sesame", 0, ""},
		{"GRPC_DEFAULT_SSL_ROOTS_FILE_PATH=" + cert, 1, "invalid or missing passphrase"},
		{"GRPC_DEFAULT_SSL_ROOTS_FILE_PATH=" + key, 1, "holds no certificate"},
		{"JMP_GRPC_PASSPHRASE=sesame", 1, "; a file of certificates to trust can be named by GRPC_DEFAULT_SSL_ROOTS_FILE_PATH\n"},
		{"JMP_GRPC_PASSPHRASE=sesame JMP_GRPC_INSECURE=1", 1, "; if it serves with TLS, leave out --tls-grpc-insecure (JMP_GRPC_INSECURE)\n"},
		{"JUMPSTARTER_HOST=" + plain, 1, "; it serves without TLS: --tls-grpc-insecure (JMP_GRPC_INSECURE=1) connects so\n"},
	} {
		b := &bench{t: t, env: append([]string{"JUMPSTARTER_HOST=" + addr}, strings.Fields(test.env)...)}
		if got := b.run("", "power", "on"); got.status != test.status || !strings.Contains(got.stderr, test.want) || strings.Contains(got.stderr, "sesame") {
			t.Errorf("j power on with %s = %d, %q; want %d, %q", test.env, got.status, got.stderr, test.status, test.want)
		}
	}
}
