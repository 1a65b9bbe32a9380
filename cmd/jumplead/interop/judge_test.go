package interop

import (
	"bufio"
	"cmp"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"strings"
	"sync"
	"syscall"
	"testing"
	"time"

	"github.com/jumplead/jumplead/hw/hwtest"
)

// secret is the passphrase of the exporters that want one. It must be in no
// log.
const secret = "correct-horse-battery"

// A ruling is a line of the judge: a case of its table, or how one went.
type ruling struct {
	Name    string
	Defect  string // what the stock exporter does wrong
	Shows   string // how that shows, as a regular expression
	Needs   string // a capability of the machine
	Outcome string // pass, fail or, if the capability is missing, absent
	Text    string
	Seconds float64
}

// A hearing is all that one exporter did before the judge.
type hearing struct {
	rulings map[string]ruling
	logs    map[string]string // what each exporter said
	before  int               // files that the main exporter had open when it was ready
	after   int               // and some time after the judge had left
}

// TestJudge runs the table of testdata/judge against both exporters. Its
// subtests are the cases; the judge runs all of them, whichever are asked for.
func TestJudge(t *testing.T) {
	env := needPython(t)
	table, err := listCases(env.Bin("python"))
	if err != nil {
		t.Fatal(err)
	}
	if len(table) == 0 {
		t.Fatal("the judge has no cases")
	}
	var hearings []func(*testing.T) *hearing
	for _, f := range flavours {
		hear := sync.OnceValues(func() (*hearing, error) {
			f, err := f()
			if err != nil {
				return nil, err
			}
			return f.hear(t.Context(), env.Bin("python"))
		})
		var told sync.Once
		hearings = append(hearings, func(t *testing.T) *hearing {
			t.Helper()
			h, err := hear()
			if err != nil {
				told.Do(func() { t.Error(err) })
			}
			if h == nil {
				t.Fatal("there was no hearing")
			}
			return h
		})
	}
	// Parallel subtests let both hearings run at once.
	for _, c := range table {
		t.Run(c.Name, func(t *testing.T) {
			for i, name := range []string{"jumplead", "python"} {
				t.Run(name, func(t *testing.T) {
					t.Parallel()
					got, ok := hearings[i](t).rulings[c.Name]
					if c.Needs != "" {
						hwtest.NeedFunc(t, hwtest.Capability(c.Needs), func() error {
							if got.Outcome == "absent" {
								return errors.New(got.Text)
							}
							return nil
						})
					}
					switch {
					case !ok:
						t.Fatalf("%s: the judge said nothing", c.Name)
					case name == "python" && c.Defect != "":
						if !regexp.MustCompile(c.Shows).MatchString(got.Text) || got.Outcome != "fail" {
							t.Errorf("the defect of the stock exporter, that %s, does not show as %q: %s: %s",
								c.Defect, c.Shows, got.Outcome, got.Text)
						}
						t.Logf("a defect of the stock exporter: %s", c.Defect)
					case got.Outcome != "pass":
						t.Errorf("%s: %s", got.Outcome, got.Text)
					}
					t.Logf("it took %.1f s", got.Seconds)
				})
			}
		})
	}
	for i, name := range []string{"jumplead", "python"} {
		t.Run("files left open/"+name, func(t *testing.T) {
			t.Parallel()
			h := hearings[i](t)
			switch {
			case h.after <= h.before:
			case name == "python":
				t.Logf("a defect of the stock exporter: transfers that failed leave files open, here %d", h.after-h.before)
			default:
				t.Errorf("%d files are open after the cases; %d were before", h.after, h.before)
			}
		})
		t.Run("passphrase in the log/"+name, func(t *testing.T) {
			t.Parallel()
			log := hearings[i](t).logs["guarded"]
			if want := "authentication failed: invalid or missing passphrase"; !strings.Contains(log, want) {
				t.Errorf("the log of the exporter lacks %q:\n%s", want, log)
			}
			for _, word := range []string{secret, "wrong"} {
				if strings.Contains(log, word) {
					t.Errorf("the log of the exporter holds the passphrase %q:\n%s", word, log)
				}
			}
		})
	}
}

// listCases asks the judge for its table.
func listCases(python string) ([]ruling, error) {
	cmd := exec.Command(python, "testdata/judge", "--list")
	cmd.Env = environment()
	out, err := cmd.Output()
	if err != nil {
		var exit *exec.ExitError
		if errors.As(err, &exit) {
			err = fmt.Errorf("%w: %s", err, exit.Stderr)
		}
		return nil, fmt.Errorf("the judge's table: %w", err)
	}
	var table []ruling
	for dec := json.NewDecoder(strings.NewReader(string(out))); ; {
		var c ruling
		if err := dec.Decode(&c); err == io.EOF {
			return table, nil
		} else if err != nil {
			return nil, fmt.Errorf("the judge's table: %w", err)
		}
		table = append(table, c)
	}
}

// hear starts the exporters that the judge wants, lets it run, and ends them.
// Each must end with status 0. If the hearing breaks off, it returns what there
// was of it and the error.
func (f flavour) hear(ctx context.Context, python string) (_ *hearing, err error) {
	dir, err := os.MkdirTemp(scratch, f.name+"-")
	if err != nil {
		return nil, err
	}
	// It takes a minute, and much longer on a machine that others use too.
	ctx, cancel := context.WithTimeout(ctx, 15*time.Minute)
	defer cancel()

	cmd := exec.CommandContext(ctx, python, "testdata/judge")
	stdin, err := cmd.StdinPipe()
	if err != nil {
		return nil, err
	}
	stdout, err := cmd.StdoutPipe()
	if err != nil {
		return nil, err
	}
	cmd.Env = environment()
	said := new(buffer)
	cmd.Stderr = said
	if err := cmd.Start(); err != nil {
		return nil, err
	}
	defer func() {
		if err != nil {
			cancel() // there is nothing left to judge
		}
		late := ctx.Err()
		if werr := cmd.Wait(); err == nil && werr != nil {
			err = fmt.Errorf("the judge: %w:\n%s", cmp.Or(late, werr), said.tail())
		}
	}()
	lines := bufio.NewScanner(stdout)
	lines.Buffer(nil, 1<<20)

	var hello struct {
		Config string
		Env    map[string]string
	}
	if err := next(lines, &hello); err != nil {
		return nil, fmt.Errorf("the judge: %w:\n%s", err, said.tail())
	}
	harness, small := filepath.Join(dir, "harness.yaml"), filepath.Join(dir, "small.yaml")
	plain, err := os.ReadFile("testdata/small.yaml")
	if err != nil {
		return nil, err
	}
	if err := errors.Join(os.WriteFile(harness, []byte(hello.Config), 0o644), os.WriteFile(small, plain, 0o644)); err != nil {
		return nil, err
	}

	h := &hearing{rulings: map[string]ruling{}, logs: map[string]string{}}
	where, running, err := f.serve(ctx, dir, harness, small, hello.Env)
	defer func() {
		for name, p := range running {
			if serr := p.end(); serr != nil && err == nil {
				err = fmt.Errorf("%s exporter: %w", name, serr)
			}
			h.logs[name] = p.stderr.String()
		}
	}()
	if err != nil {
		return nil, err
	}
	if h.before, err = running["main"].files(); err != nil {
		return nil, err
	}
	if err := json.NewEncoder(stdin).Encode(where); err != nil {
		return nil, fmt.Errorf("the judge: %w:\n%s", err, said.tail())
	}
	for {
		var r ruling
		switch err := next(lines, &r); {
		case err == io.EOF:
			h.after, err = running["main"].settle(ctx, h.before)
			return h, err
		case err != nil:
			return h, fmt.Errorf("the judge: %w:\n%s", err, said.tail())
		}
		h.rulings[r.Name] = r
	}
}

// settle waits until the process has no more files open than it had, and
// returns how many it has after a while.
func (p *process) settle(ctx context.Context, want int) (int, error) {
	ctx, cancel := context.WithTimeout(ctx, 5*time.Second)
	defer cancel()
	tick := time.NewTicker(50 * time.Millisecond)
	defer tick.Stop()
	for {
		n, err := p.files()
		if err != nil || n <= want {
			return n, err
		}
		select {
		case <-ctx.Done():
			return n, nil
		case <-tick.C:
		}
	}
}

func next(lines *bufio.Scanner, into any) error {
	if !lines.Scan() {
		if err := lines.Err(); err != nil {
			return err
		}
		return io.EOF
	}
	if err := json.Unmarshal(lines.Bytes(), into); err != nil {
		return fmt.Errorf("%w: %s", err, lines.Text())
	}
	return nil
}

// A served exporter knows how it is told to end.
type served struct {
	*process
	end func() error
}

// serve starts the exporters: one with the harness, and small ones behind a
// passphrase, TLS and a Unix socket. It returns what the judge must know of
// them, and those that run, also if it fails. The exporter with the harness gets
// env besides the environment of the others.
func (f flavour) serve(ctx context.Context, dir, harness, small string, env map[string]string) (where map[string]string, running map[string]served, err error) {
	ours, err := newAuthority("ours")
	if err != nil {
		return nil, nil, err
	}
	stranger, err := newAuthority("a stranger")
	if err != nil {
		return nil, nil, err
	}
	ca, cert, key := filepath.Join(dir, "ca.pem"), filepath.Join(dir, "cert.pem"), filepath.Join(dir, "key.pem")
	if err := errors.Join(ours.issue(cert, key), os.WriteFile(ca, ours.pem, 0o644)); err != nil {
		return nil, nil, err
	}
	where = map[string]string{"ca": ca, "stranger": string(stranger.pem), "passphrase": secret}
	running = map[string]served{}
	ways := map[string]way{}
	for name, how := range map[string]struct {
		config string
		env    map[string]string
		args   []string
		way    way
	}{
		"main":    {harness, env, []string{"--tls-grpc-insecure"}, way{}},
		"guarded": {small, nil, []string{"--tls-grpc-insecure", "--passphrase", secret}, way{passphrase: secret}},
		"tls":     {small, nil, []string{"--tls-cert", cert, "--tls-key", key}, way{tls: ours.trust()}},
	} {
		address, err := freePort()
		if err != nil {
			return nil, running, err
		}
		cmd := f.run(append([]string{"--exporter-config", how.config, "--tls-grpc-listener", address}, how.args...)...)
		for name, value := range how.env {
			cmd.Env = append(cmd.Env, name+"="+value)
		}
		p, err := start(cmd)
		if err != nil {
			return nil, running, err
		}
		running[name] = served{p, func() error { return p.stop(syscall.SIGTERM) }}
		how.way.target = address
		where[name], ways[name] = address, how.way
	}
	local, path, err := f.local(small, filepath.Join(dir, "exporter.sock"))
	if err != nil {
		return nil, running, err
	}
	running["local"], where["local"], ways["local"] = local, path, way{target: "unix:" + path}
	for name, w := range ways {
		if err := running[name].ready(ctx, w); err != nil {
			return nil, running, fmt.Errorf("%s exporter: %w", name, err)
		}
	}
	return where, running, nil
}

// local starts an exporter on a Unix socket. The stock one does that only
// under `jmp shell`, at a path of its own choice, for as long as the command
// in that shell runs.
func (f flavour) local(config, path string) (served, string, error) {
	if f.ours {
		p, err := f.exporter("--exporter-config", config, "--listen", "unix:"+path)
		if err != nil {
			return served{}, "", err
		}
		return served{p, func() error { return p.stop(syscall.SIGTERM) }}, path, nil
	}
	cmd := exec.Command(f.program, "shell", "--exporter-config", config, "--", "sh", "-c", `echo "$JUMPSTARTER_HOST"; exec cat`)
	stdin, err := cmd.StdinPipe()
	if err != nil {
		return served{}, "", err
	}
	// Not StdoutPipe: waiting for the process would close it.
	r, w, err := os.Pipe()
	if err != nil {
		return served{}, "", err
	}
	cmd.Stdout = w
	p, err := start(cmd)
	w.Close()
	if err != nil {
		r.Close()
		return served{}, "", err
	}
	s := served{p, func() error {
		stdin.Close()
		code, err := p.status(30 * time.Second)
		if err == nil && code != 0 {
			err = fmt.Errorf("%v; want exit status 0:\n%s", p.cmd.ProcessState, p.stderr.tail())
		}
		p.kill()
		return err
	}}
	output := bufio.NewReader(r)
	host, err := output.ReadString('\n')
	go func() {
		// Its log comes here as well, and an end of the pipe ends jmp.
		io.Copy(p.stderr, output)
		r.Close()
	}()
	if err != nil {
		s.end()
		return served{}, "", fmt.Errorf("jmp shell: %w:\n%s", err, p.stderr.tail())
	}
	return s, strings.TrimSpace(host), nil
}
