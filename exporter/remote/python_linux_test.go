package remote_test

import (
	"bytes"
	"context"
	"errors"
	"flag"
	"fmt"
	"io"
	mrand "math/rand/v2"
	"net"
	"os"
	"path/filepath"
	"runtime"
	"slices"
	"strconv"
	"strings"
	"sync"
	"sync/atomic"
	"syscall"
	"testing"
	"time"

	"github.com/jumplead/jumplead/cmd/jumplead/interop/pyenv"
	"github.com/jumplead/jumplead/drivers/driver"
	"github.com/jumplead/jumplead/exporter/remote"
	"gopkg.in/yaml.v3"
)

// pythonKills is how often TestPythonKills kills. 100 take four minutes.
var pythonKills = flag.Int("pythonkills", 20, "how often the process of stock drivers is killed")

// stock makes the Python of the stock release the interpreter, with a lab's own
// drivers beside it.
func stock(t *testing.T) string {
	t.Helper()
	env := pyenv.Need(t)
	root, err := pyenv.Root()
	if err != nil {
		t.Fatal(err)
	}
	t.Setenv("PYTHONPATH", filepath.Join(root, "cmd/jumplead/interop/testdata/hosted"))
	t.Setenv("PYTHONDONTWRITEBYTECODE", "1")
	return env.Bin("python")
}

// gadget is a driver of a lab's own, with a child that it makes itself.
func gadget(t *testing.T, name, config string) driver.Decl {
	t.Helper()
	d := driver.Decl{Name: name, Type: "lab_gadget.Gadget"}
	if config != "" {
		d.Config = new(yaml.Node)
		if err := yaml.Unmarshal([]byte(config), d.Config); err != nil {
			t.Fatal(err)
		}
	}
	return d
}

// usage is what a process has in use.
type usage struct {
	files, threads int
	memory         int // bytes, resident
}

func (u usage) String() string {
	return fmt.Sprintf("%d descriptors, %d threads, %.1f MB", u.files, u.threads, float64(u.memory)/1e6)
}

func used(t *testing.T, pid int) (u usage) {
	t.Helper()
	list, err := os.ReadDir(fmt.Sprintf("/proc/%d/fd", pid))
	if err != nil {
		t.Fatal(err)
	}
	text, err := os.ReadFile(fmt.Sprintf("/proc/%d/status", pid))
	if err != nil {
		t.Fatal(err)
	}
	u.files = len(list)
	for line := range strings.Lines(string(text)) {
		f := strings.Fields(line)
		if len(f) < 2 {
			continue
		}
		n, _ := strconv.Atoi(f[1])
		switch f[0] {
		case "Threads:":
			u.threads = n
		case "VmRSS:":
			u.memory = n << 10
		}
	}
	return u
}

// below lists the processes that a process has started.
func below(t *testing.T, pid int) (pids []int) {
	t.Helper()
	tasks, err := filepath.Glob(fmt.Sprintf("/proc/%d/task/*/children", pid))
	if err != nil {
		t.Fatal(err)
	}
	for _, task := range tasks {
		text, _ := os.ReadFile(task) // the thread may have ended
		for _, word := range strings.Fields(string(text)) {
			child, err := strconv.Atoi(word)
			if err != nil {
				t.Fatal(err)
			}
			pids = append(pids, child)
		}
	}
	return pids
}

// echoing answers every connection with what it sends, and returns its port.
func echoing(t *testing.T) int {
	t.Helper()
	ln := listen(t, "tcp", "127.0.0.1:0")
	t.Cleanup(func() { ln.Close() })
	go func() {
		for {
			c, err := ln.Accept()
			if err != nil {
				return
			}
			go func() {
				defer c.Close()
				_, _ = io.Copy(c, c)
			}()
		}
	}()
	return ln.Addr().(*net.TCPAddr).Port
}

// Sessions that are half native and half stock Python come and go on one process,
// and leave nothing in it or in us.
func TestPythonSessions(t *testing.T) {
	const sessions, settled = 200, 50
	python := stock(t)
	h := &remote.Hosts{Getenv: func(k string) string { return map[string]string{"JUMPLEAD_PYTHON": python}[k] }}
	defer h.Close()
	config := fmt.Sprintf("{port: %d}", echoing(t))
	session := func(use bool) int {
		tree, problems := plan(t, h, nil, gadget(t, "far", config), driver.Decl{Name: "near", Type: native.Type},
			driver.Decl{Name: "supply", Type: "jumpstarter_driver_power.driver.MockPower"})
		if err := problems.Err(); err != nil {
			t.Fatalf("Plan() = %v; want nil", err)
		}
		if err := tree.Open(t.Context()); err != nil {
			t.Fatalf("Open() = %v; want nil", err)
		}
		defer func() {
			if err := tree.Close(); err != nil {
				t.Fatalf("Close() = %v; want nil", err)
			}
		}()
		far := tree.Nodes()[1].Caller()
		state, err := far.Call(soon(t), "state")
		if err != nil {
			t.Fatalf("Call(state) = %v; want nil", err)
		}
		if use {
			s, err := far.Stream(soon(t), "connect")
			if err != nil {
				t.Fatalf("Stream() = %v; want nil", err)
			}
			defer s.Close() // with the session
			if _, err := s.Write([]byte("x")); err != nil {
				t.Fatal(err)
			}
			if _, err := io.ReadFull(s, make([]byte, 1)); err != nil {
				t.Fatal(err)
			}
		}
		return int(state.(map[string]any)["pid"].(float64))
	}
	pid := session(true)
	var before, ours usage
	routines := 0
	for i := range sessions {
		if i == settled {
			runtime.GC()
			before, ours, routines = used(t, pid), used(t, os.Getpid()), runtime.NumGoroutine()
		}
		if got := session(i%4 == 0); got != pid {
			t.Fatalf("session %d is in process %d; want %d", i, got, pid)
		}
	}
	eventually(t, "the process and we have as much in use as before", func() bool {
		runtime.GC()
		after, us := used(t, pid), used(t, os.Getpid())
		return after.files <= before.files && after.threads <= before.threads+2 && us.files <= ours.files && runtime.NumGoroutine() <= routines
	})
	after := used(t, pid)
	t.Logf("the process: %v, after %d more sessions %v", before, sessions-settled, after)
	if grown := after.memory - before.memory; grown > 4<<20 {
		t.Errorf("the process has grown by %d bytes in %d sessions; want no growth", grown, sessions-settled)
	}
	if list := below(t, pid); len(list) > 0 {
		t.Errorf("processes below that of the drivers = %v; want none", list)
	}
	h.Close()
	if list := below(t, os.Getpid()); slices.Contains(list, pid) {
		t.Errorf("process %d is there after Close", pid)
	}
}

// Clients that vanish in the middle of whatever they do leave nothing behind.
func TestPythonClientGone(t *testing.T) {
	python := stock(t)
	far := gadget(t, "far", fmt.Sprintf("{port: %d}", echoing(t)))
	far.Hosting.Python = python
	b := serve(t, far, driver.Decl{Name: "near", Type: native.Type})
	n := b.find(t, "far")
	pid := int(b.call(t, "far", "state").(map[string]any)["pid"].(float64))
	gone := map[string]func(ctx context.Context) error{
		"sending": func(ctx context.Context) error { // what comes back is not read
			s, err := n.Stream(ctx, "connect")
			if err != nil {
				return err
			}
			for range 40 {
				sent := make(chan error, 1)
				go func() { _, err := s.Write(make([]byte, 100_000)); sent <- err }()
				select {
				case err := <-sent:
					if err != nil {
						return err
					}
				case <-time.After(200 * time.Millisecond): // it is held up
					return s.Close()
				}
			}
			return s.Close()
		},
		"receiving": func(ctx context.Context) error {
			s, err := n.Stream(ctx, "flood")
			if err != nil {
				return err
			}
			if _, err := io.ReadFull(s, make([]byte, 1_000_000)); err != nil {
				return err
			}
			return s.Close()
		},
		"a sequence": func(ctx context.Context) error {
			ctx, cancel := context.WithCancel(ctx)
			defer cancel()
			for v, err := range n.Feed(ctx, "count", 1_000_000) {
				if err != nil {
					return err
				}
				if v == 100.0 {
					return nil
				}
			}
			return errors.New("the sequence ended")
		},
		"an upload": func(ctx context.Context) error {
			ctx, cancel := context.WithCancel(ctx)
			defer cancel()
			r, w := io.Pipe()
			go func() {
				_, _ = w.Write(bytes.Repeat([]byte("x"), 1_000_000))
				cancel()
				w.CloseWithError(context.Canceled)
			}()
			err := driver.Upload(ctx, n, r, func(ctx context.Context, handle driver.Handle) error {
				_, err := n.Call(ctx, "size", handle)
				return err
			})
			if err == nil {
				return errors.New("an upload that was given up has succeeded")
			}
			return nil
		},
		"a download": func(ctx context.Context) error {
			ctx, cancel := context.WithCancel(ctx)
			defer cancel()
			err := driver.Download(ctx, n, &quits{left: 100_000, quit: cancel}, func(ctx context.Context, handle driver.Handle) error {
				_, err := n.Call(ctx, "make", handle, 10_000)
				return err
			})
			if err == nil {
				return errors.New("a download that was given up has succeeded")
			}
			return nil
		},
	}
	all := func() {
		for what, leave := range gone {
			if err := leave(soon(t)); err != nil {
				t.Fatalf("%s: %v", what, err)
			}
		}
	}
	all()
	b.call(t, "far", "state")
	before, routines := used(t, pid), runtime.NumGoroutine()
	for range 10 {
		all()
	}
	if got := b.call(t, "near", "path"); got != "near" {
		t.Errorf("path of a native node = %v; want near", got)
	}
	if got := int(b.call(t, "far", "state").(map[string]any)["pid"].(float64)); got != pid {
		t.Errorf("the process of hosted drivers = %d; want %d as before", got, pid)
	}
	var after usage
	eventually(t, "the process and we have as much in use as before", func() bool {
		after = used(t, pid)
		return after.files <= before.files+2 && runtime.NumGoroutine() <= routines+4
	})
	t.Logf("the process: %v, after 50 clients were gone %v", before, after)
}

// quits takes some bytes and ends it.
type quits struct {
	left int
	quit func()
}

func (q *quits) Write(p []byte) (int, error) {
	if q.left -= len(p); q.left <= 0 {
		q.quit()
		return 0, context.Canceled
	}
	return len(p), nil
}

// A call that never returns holds up its caller alone, for as long as that likes.
// One that stops all of Python still leaves the native nodes alone, and the session
// ends in time.
func TestPythonHangs(t *testing.T) {
	python := stock(t)
	for _, c := range []struct {
		method string
		all    bool // nothing else goes on in the process
	}{
		{method: "hang"},
		{method: "hang_await"},
		{method: "hang_loop", all: true},
	} {
		t.Run(c.method, func(t *testing.T) {
			far := gadget(t, "far", "")
			far.Hosting.Python = python
			b := serve(t, far, driver.Decl{Name: "near", Type: native.Type})
			n := b.find(t, "far")
			b.call(t, "far", "state")
			ctx, cancel := context.WithTimeout(t.Context(), 300*time.Millisecond)
			defer cancel()
			began := time.Now()
			if _, err := n.Call(ctx, c.method); !errors.Is(err, context.DeadlineExceeded) || time.Since(began) > 5*time.Second {
				t.Errorf("Call(%s) = %v after %v; want the end of its time, 300 ms", c.method, err, time.Since(began))
			}
			ctx, cancel = context.WithCancel(t.Context())
			hung := make(chan error, 1)
			go func() { _, err := n.Call(ctx, c.method); hung <- err }()
			for range 20 {
				began := time.Now()
				b.call(t, "near", "path")
				if d := time.Since(began); d > time.Second {
					t.Errorf("a native call beside one that hangs took %v", d)
				}
			}
			if !c.all {
				// Nor do many that were given up use up what the others need.
				for range 50 {
					ctx, cancel := context.WithTimeout(t.Context(), 20*time.Millisecond)
					_, _ = n.Call(ctx, c.method)
					cancel()
				}
				b.call(t, "far", "state")
			}
			cancel()
			if err := <-hung; !errors.Is(err, context.Canceled) {
				t.Errorf("Call(%s) = %v; want canceled", c.method, err)
			}
			began = time.Now()
			err := b.tree.Close()
			b.hosts.Close()
			if d := time.Since(began); d > 12*time.Second {
				t.Errorf("the session ended after %v; want at most 12 s", d)
			}
			if c.all != (err != nil) || c.all && !strings.Contains(err.Error(), "far") {
				t.Errorf("Close() = %v; want that far does not close: %t", err, c.all)
			}
		})
	}
}

// The process of stock drivers is killed at random moments while it is busy.
func TestPythonKills(t *testing.T) {
	kills := *pythonKills
	if testing.Short() {
		kills = 3
	}
	python := stock(t)
	port := echoing(t)
	far, supply := gadget(t, "far", fmt.Sprintf("{port: %d}", port)), driver.Decl{Name: "supply", Type: "jumpstarter_driver_power.driver.SyncMockPower"}
	far.Hosting.Python, supply.Hosting.Python = python, python
	b := serve(t, far, supply, driver.Decl{Name: "near", Type: native.Type})
	node, near := b.find(t, "far"), b.find(t, "near")
	pid := func() int {
		v, err := node.Call(soon(t), "state")
		if err != nil {
			return 0
		}
		return int(v.(map[string]any)["pid"].(float64))
	}
	files, routines := openFiles(t), runtime.NumGoroutine()

	// What a start costs is measured among the restarts, under the same load: a
	// fresh set of processes, from nothing to the first answer.
	cold := func() time.Duration {
		began := time.Now()
		h := &remote.Hosts{Getenv: func(k string) string { return map[string]string{"JUMPLEAD_PYTHON": python}[k] }}
		defer h.Close()
		tree, problems := plan(t, h, nil, far, supply)
		if err := problems.Err(); err != nil {
			t.Fatalf("Plan() = %v; want nil", err)
		}
		if err := tree.Open(t.Context()); err != nil {
			t.Fatalf("Open() = %v; want nil", err)
		}
		defer tree.Close()
		if _, err := tree.Nodes()[1].Caller().Call(soon(t), "state"); err != nil {
			t.Fatalf("Call() = %v; want nil", err)
		}
		return time.Since(began)
	}

	ctx, stop := context.WithCancel(t.Context())
	var load sync.WaitGroup
	var served, slowest atomic.Int64
	// A board has better things to do than to be asked all the time: the load is
	// steady, and leaves processor time to start Python with.
	steady := func(every time.Duration, ask func() error) {
		load.Go(func() {
			tick := time.NewTicker(every)
			defer tick.Stop()
			for {
				select {
				case <-tick.C:
				case <-ctx.Done():
					return
				}
				if err := ask(); err != nil && ctx.Err() == nil {
					t.Error(err)
					return
				}
			}
		})
	}
	steady(2*time.Millisecond, func() error {
		began := time.Now()
		v, err := near.Call(ctx, "path")
		if d := int64(time.Since(began)); d > slowest.Load() {
			slowest.Store(d)
		}
		if err != nil || v != "near" {
			return fmt.Errorf("native node = %v, %w; want near", v, err)
		}
		return nil
	})
	steady(5*time.Millisecond, func() error {
		_, err := node.Call(ctx, "state")
		if err == nil {
			served.Add(1)
		} else if driver.Classify(err) != driver.Unavailable {
			return fmt.Errorf("hosted node = %w; want it to answer, or unavailable", err)
		}
		return nil
	})
	steady(20*time.Millisecond, func() error {
		s, err := node.Stream(ctx, "connect")
		for range 10 {
			if err == nil {
				_, err = s.Write(make([]byte, 10_000))
			}
			if err == nil {
				_, err = io.ReadFull(s, make([]byte, 10_000))
			}
		}
		if s != nil {
			s.Close()
		}
		return nil // it may be cut off at any time
	})

	var starts, absences []time.Duration
	for i := range kills {
		var old int
		eventually(t, "the hosted node answers", func() bool { old = pid(); return old != 0 })
		left := int(b.call(t, "far", "spawn").(float64))
		<-time.After(time.Duration(mrand.IntN(500)) * time.Millisecond)
		b.forget() // a pause is for what fails by itself
		killed := time.Now()
		if err := syscall.Kill(old, syscall.SIGKILL); err != nil {
			t.Fatal(err)
		}
		eventually(t, "the hosted node is back", func() bool { now := pid(); return now != 0 && now != old })
		absences = append(absences, time.Since(killed))
		eventually(t, "what the dead one had started is gone", func() bool { return !alive(left) })
		if i%5 == 0 {
			starts = append(starts, cold())
		}
	}
	eventually(t, "the other hosted node is back", func() bool {
		_, err := b.find(t, "supply").Call(soon(t), "on")
		return err == nil
	})
	stop()
	load.Wait()
	slices.Sort(starts)
	slices.Sort(absences)
	start, absence := starts[len(starts)/2], absences[len(absences)/2]
	limit := start*3/2 + 500*time.Millisecond
	t.Logf("%d kills: absent for %v, %v, %v (least, median, most); a cold start takes %v (median); %d calls were served; the slowest native call took %v",
		kills, absences[0], absence, absences[len(absences)-1], start, served.Load(), time.Duration(slowest.Load()))
	if absence > limit {
		t.Errorf("the median absence was %v; want at most %v", absence, limit)
	}
	if served.Load() == 0 {
		t.Error("no call on the hosted node was served")
	}
	eventually(t, "descriptors and goroutines are as many as before", func() bool {
		return openFiles(t) <= files+2 && runtime.NumGoroutine() <= routines+2
	})
	if list := below(t, os.Getpid()); len(list) != 1 {
		t.Errorf("processes that are there = %v; want one, that of the hosted drivers", list)
	}
}
