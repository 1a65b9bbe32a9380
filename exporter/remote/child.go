package remote

import (
	"bufio"
	"context"
	"encoding/base64"
	"encoding/json"
	"errors"
	"fmt"
	"log/slog"
	"net"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"sync"
	"sync/atomic"
	"time"

	"github.com/jumplead/jumplead/drivers/driver"
	"github.com/jumplead/jumplead/exporter/scratch"
	pb "github.com/jumplead/jumplead/proto/jumpstarter/v1"
	"google.golang.org/protobuf/proto"
)

const (
	startLimit = 30 * time.Second // for a process to be ready, or a driver to be opened
	closeLimit = 5 * time.Second  // for a driver to close
	maxReply   = 16 << 20         // bytes of a line that a process says
)

// child is the process of some hosted nodes. It is started when it is needed for
// the first time, and from then on again whenever it has ended, until it is closed
// or nobody has needed it for a while.
type child struct {
	*Hosts
	host
	limits *driver.Limits // nil: none

	users int       // besides the nodes that are open; guarded by Hosts
	left  time.Time // when the last one did

	stop context.CancelFunc
	life context.Context
	gone chan struct{} // closed when nothing is left of it

	forget atomic.Bool // what has failed before

	mu      sync.Mutex
	started bool
	run     *run          // the process that is ready, or nil
	why     error         // there is none
	changed chan struct{} // closed when run or why changes
	mounts  []*hosted
	looked  map[string]look
	bad     map[string]badLook
}

func newChild(h *Hosts, key host, l *driver.Limits) *child {
	c := &child{Hosts: h, host: key, limits: l, gone: make(chan struct{}), changed: make(chan struct{}), looked: map[string]look{}, bad: map[string]badLook{}}
	c.life, c.stop = context.WithCancel(context.Background())
	return c
}

// hosted is a node that is hosted.
type hosted struct {
	*mount
	child *child
	decl  declaration

	types   []string    // of its drivers
	suspect atomic.Bool // the process ended while it was being opened: not before somebody asks for it
	turn    sync.Mutex  // held while it is being opened
	pauses  pauses
	next    time.Time // not to be tried again before
}

func (c *child) limit() time.Duration {
	if c.Start > 0 {
		return c.Start
	}
	return startLimit
}

// log is where what is said goes to: the log of the harness, when there is one.
func (c *child) log() *slog.Logger {
	c.mu.Lock()
	defer c.mu.Unlock()
	if len(c.mounts) > 0 {
		return c.mounts[0].env.Exporter()
	}
	if c.Log == nil {
		return slog.New(slog.DiscardHandler)
	}
	return c.Log
}

// set says what there is now. The caller holds mu.
func (c *child) set(r *run, why error) {
	c.run, c.why = r, why
	close(c.changed)
	c.changed = make(chan struct{})
}

// ready is the process, as soon as there is one, or why there is none.
func (c *child) ready(ctx context.Context) (*run, error) {
	c.mu.Lock()
	defer c.mu.Unlock()
	if !c.started {
		c.started = true
		go c.keep()
	}
	for {
		switch {
		case c.life.Err() != nil:
			return nil, errors.New("the exporter ends")
		case c.run != nil:
			return c.run, nil
		case c.why != nil:
			return nil, c.why
		}
		changed := c.changed
		c.mu.Unlock()
		select {
		case <-changed:
		case <-ctx.Done():
		case <-c.life.Done():
		}
		c.mu.Lock()
		if ctx.Err() != nil {
			return nil, ctx.Err()
		}
	}
}

// keep keeps a process running.
func (c *child) keep() {
	dropped := false
	defer func() {
		close(c.gone)
		if dropped {
			c.leaving.Done()
		}
	}()
	unused := time.NewTicker(c.idle())
	defer unused.Stop()
	var p pauses
	for c.life.Err() == nil {
		began := time.Now()
		r, err := c.begin()
		if err == nil {
			c.mu.Lock()
			mounts := slices.Clone(c.mounts)
			c.set(r, nil)
			c.mu.Unlock()
			for _, m := range mounts { // in the order in which they refer to each other
				if !m.suspect.Load() {
					m.open(r)
				}
			}
			for up := true; up; {
				up = false
				select {
				case <-r.exited:
				case <-r.conn.broken: // mostly because it is about to end
					if !r.wait(killGrace) {
						r.fail(errors.New("the connection to the process of hosted drivers broke"))
					}
				case <-unused.C:
					if dropped = c.drop(c); dropped {
						c.stop()
					}
					up = !dropped
				case <-c.life.Done():
				}
			}
			c.mu.Lock()
			c.set(nil, nil)
			c.mu.Unlock()
			r.stop()
			err = r.reason()
		}
		if c.life.Err() != nil {
			break
		}
		if c.forget.Swap(false) {
			p = pauses{}
		}
		pause := p.after(time.Since(began))
		c.log().Error("the process of hosted drivers has ended; starting it again", "driver", "python", "error", err, "pause", pause)
		c.mu.Lock()
		c.set(nil, err)
		c.mu.Unlock()
		t := time.NewTimer(pause)
		select {
		case <-t.C:
		case <-c.life.Done():
		}
		t.Stop()
		if dropped = c.drop(c); dropped {
			c.stop()
		}
	}
}

// close ends the process for good.
func (c *child) close() {
	c.stop()
	c.mu.Lock()
	started := c.started
	c.started = true
	c.mu.Unlock()
	if started {
		<-c.gone
	}
}

// add opens a node, and keeps it open from then on. That it cannot be opened now is
// no error.
func (c *child) add(ctx context.Context, m *hosted) error {
	c.mu.Lock()
	c.mounts = append(c.mounts, m)
	c.mu.Unlock()
	if err := c.badType(m.types); err != nil { // it was tried a moment ago
		m.suspect.Store(true)
		m.next = time.Now().Add(m.pauses.after(0))
		m.failed(err)
		return nil
	}
	r, err := c.ready(ctx)
	if err == nil {
		m.open(r)
	} else if ctx.Err() == nil {
		m.failed(err)
	}
	if ctx.Err() != nil {
		_ = m.Close()
		return ctx.Err()
	}
	return nil
}

// open opens the node in a process, if it is not open there. Who asks for it may
// go: it is opened for others, too.
func (m *hosted) open(r *run) {
	m.turn.Lock()
	defer m.turn.Unlock()
	if c, _, _ := m.now(); c == r.conn {
		return
	}
	m.child.mu.Lock()
	wanted := slices.Contains(m.child.mounts, m) && m.child.run == r
	m.child.mu.Unlock()
	if !wanted {
		return
	}
	reply, err := r.ask(m.child.life, request{Op: "open", Path: m.env.Names(), Decl: &m.decl})
	m.suspect.Store(errors.As(err, new(*died)))
	if err == nil {
		err = m.take(r, reply)
	}
	if err == nil {
		m.pauses, m.next = pauses{}, time.Time{}
		return
	}
	m.next = time.Now().Add(m.pauses.after(0))
	m.failed(err)
}

func (m *hosted) take(r *run, reply reply) error {
	text, err := base64.StdEncoding.DecodeString(reply.Reports)
	var report pb.GetReportResponse
	if err == nil {
		err = proto.Unmarshal(text, &report)
	}
	if err == nil {
		if len(report.Reports) > 0 { // the process may know its parent
			report.Reports[0].ParentUuid = nil
		}
		err = m.up(r.conn, report.Reports)
	}
	if err != nil {
		return fmt.Errorf("what it reports cannot be used: %w", err)
	}
	return nil
}

// failed notes why the node is not there.
func (m *hosted) failed(err error) {
	if _, _, before := m.now(); before == nil || before.Error() != err.Error() {
		m.env.Log.Warn("hosted driver cannot be used now; trying again when it is asked for", "error", err)
	}
	m.down(err)
}

// again opens a node that could not be opened before, now that somebody asks for
// it.
func (m *hosted) again(ctx context.Context) error {
	r, err := m.child.ready(ctx)
	if err != nil {
		return err
	}
	m.turn.Lock()
	early := time.Now().Before(m.next)
	m.turn.Unlock()
	if !early {
		m.open(r)
	}
	_, _, why := m.now()
	return why
}

// Reset resets the node's driver.
func (m *hosted) Reset(ctx context.Context) error {
	r, err := m.child.ready(ctx)
	if err != nil {
		return unavailable(err)
	}
	_, err = r.ask(ctx, request{Op: "reset", Path: m.env.Names()})
	return err
}

// Close closes the node's driver.
func (m *hosted) Close() error {
	c := m.child
	c.use(c)
	defer c.leave(c)
	c.mu.Lock()
	c.mounts = slices.DeleteFunc(c.mounts, func(x *hosted) bool { return x == m })
	r := c.run
	c.mu.Unlock()
	m.turn.Lock()
	defer m.turn.Unlock()
	on, _, _ := m.now()
	m.down(errors.New("it was closed"))
	if r == nil || on != r.conn {
		return nil
	}
	ctx, cancel := context.WithTimeout(context.Background(), closeLimit)
	defer cancel()
	_, err := r.ask(ctx, request{Op: "close", Path: m.env.Names()})
	if errors.As(err, new(*died)) {
		return nil // with the process
	}
	if errors.Is(err, context.DeadlineExceeded) {
		r.fail(fmt.Errorf("%s did not close within %v", m.env.Path, closeLimit))
	}
	return err
}

// look asks for what is known of a driver without making one. The first answer
// that is good is kept.
func (c *child) look(typ string) (look, error) {
	c.mu.Lock()
	info, ok := c.looked[typ]
	c.mu.Unlock()
	if ok {
		return info, nil
	}
	if err := c.badType([]string{typ}); err != nil {
		return look{}, err
	}
	r, err := c.ready(c.life)
	if err != nil {
		return look{}, err
	}
	reply, err := r.ask(c.life, request{Op: "look", Type: typ})
	if err != nil {
		if errors.As(err, new(*died)) {
			c.mu.Lock()
			c.bad[typ] = badLook{err, time.Now()}
			c.mu.Unlock()
		}
		return look{}, err
	}
	c.mu.Lock()
	c.looked[typ] = reply.look
	c.mu.Unlock()
	return reply.look, nil
}

// badLook is why the process ended when it was asked for a type.
type badLook struct {
	err error
	at  time.Time
}

// badLooks is how long that is remembered: it may take long to find out.
const badLooks = time.Minute

// badType is why the process would end if one of these types were imported.
func (c *child) badType(types []string) error {
	c.mu.Lock()
	defer c.mu.Unlock()
	for _, typ := range types {
		if b, ok := c.bad[typ]; ok && time.Since(b.at) < badLooks {
			return b.err
		}
	}
	return nil
}

// look is what can be told of a driver without making one.
type look struct {
	Client   string   `json:"client"`
	Kind     string   `json:"kind"`
	Fields   []string `json:"fields"`
	Required []string `json:"required"`
}

type request struct {
	ID   int          `json:"id"`
	Op   string       `json:"op"`
	Type string       `json:"type,omitempty"`
	Path []string     `json:"path,omitempty"`
	Decl *declaration `json:"decl,omitempty"`
}

// asked is a request that has not been answered.
type asked struct {
	what   string
	turn   int // in the order in which they were sent; 0 before
	answer chan<- reply
}

type reply struct {
	look
	Reports string   `json:"reports"`
	Error   *refusal `json:"error"`
}

// refusal is why Python cannot do what it was asked for.
type refusal struct {
	Kind   string   `json:"kind"` // missing, class, import, driver, socket
	Text   string   `json:"text"`
	Module string   `json:"module"`
	There  []string `json:"there"` // what could have been meant
}

func (r *refusal) Error() string { return r.Text }

// died says that the process ended before it had answered.
type died struct{ why error }

func (d *died) Error() string { return d.why.Error() }
func (d *died) Unwrap() error { return d.why }

// run is one process that serves.
type run struct {
	*process
	child *child
	conn  *conn
	dir   *scratch.Folder

	heard chan struct{} // closed when all that it said was heard
	ready chan struct{} // closed when it serves
	mu    sync.Mutex
	fatal error // what it says, or is told, of its end
	last  int
	calls map[int]*asked
	told  int // how many requests have been sent
	write sync.Mutex
}

// begin starts a process, and waits until it serves.
func (c *child) begin() (_ *run, err error) {
	own, err := folder()
	if err != nil {
		return nil, err
	}
	dir := own.Path
	r := &run{child: c, dir: own, heard: make(chan struct{}), ready: make(chan struct{}), calls: map[int]*asked{}}
	defer func() {
		if err != nil {
			_ = own.Remove()
		}
	}()
	// The folder is private. Its name is all that other users can see of it.
	path, socket := filepath.Join(dir, "hosted.py"), filepath.Join(dir, "s")
	if err := os.WriteFile(path, script, 0o644); err != nil {
		return nil, err
	}
	if err := give(dir, c.user); err != nil {
		return nil, err
	}
	limits, err := c.bounds(dir)
	if err != nil {
		return nil, err
	}
	hear, says, err := os.Pipe()
	if err != nil {
		return nil, err
	}
	env := append(os.Environ(), "PYTHONUNBUFFERED=1", "PYTHONFAULTHANDLER=1")
	if limits != nil && limits.Files() {
		env = append(env, "TMPDIR="+dir)
	}
	r.process, err = start([]string{c.python, path, socket}, spawn{
		Log: c.printed, User: c.user, Env: env, Says: says, Limits: limits, Lifeline: true})
	if err != nil {
		hear.Close()
		return nil, err
	}
	go r.listen(hear)
	t := time.NewTimer(c.limit())
	defer t.Stop()
	select {
	case <-r.ready:
		nc, err := net.DialTimeout("unix", socket, c.limit())
		if err == nil {
			r.conn = attach(nc)
			_ = os.Remove(socket) // nobody else is to call the drivers past the exporter
			return r, nil
		}
		r.fail(err)
	case <-r.exited:
	case <-t.C:
		r.fail(fmt.Errorf("%s was not ready within %v", c.python, c.limit()))
	case <-c.life.Done():
	}
	r.stop()
	return nil, r.reason()
}

// stop ends the process and whatever waits for it.
func (r *run) stop() {
	r.end(closeLimit)
	<-r.heard
	why := r.reason()
	if r.conn != nil {
		r.conn.end(why)
		r.conn.Close()
	}
	r.child.mu.Lock()
	mounts := slices.Clone(r.child.mounts)
	r.child.mu.Unlock()
	for _, m := range mounts {
		if c, _, _ := m.now(); c == r.conn && c != nil {
			m.down(why)
		}
	}
	_ = r.dir.Remove()
}

// fail ends the process at once, and says why.
func (r *run) fail(why error) {
	r.mu.Lock()
	if r.fatal == nil {
		r.fatal = why
	}
	r.mu.Unlock()
	r.kill()
}

// reason is why the process has ended.
func (r *run) reason() error {
	r.mu.Lock()
	defer r.mu.Unlock()
	if r.fatal != nil {
		return r.fatal
	}
	return r.why()
}

// ask asks the process for something.
func (r *run) ask(ctx context.Context, q request) (reply, error) {
	ctx, cancel := context.WithTimeout(ctx, r.child.limit())
	defer cancel()
	answer := make(chan reply, 1)
	call := &asked{what: strings.TrimSpace(strings.Join(q.Path, ".")+" "+q.Type) + ": " + q.Op, answer: answer}
	r.mu.Lock()
	r.last++
	q.ID = r.last
	r.calls[q.ID] = call
	r.mu.Unlock()
	defer func() {
		r.mu.Lock()
		delete(r.calls, q.ID)
		r.mu.Unlock()
	}()
	text, err := json.Marshal(q)
	if err != nil {
		return reply{}, err
	}
	sent := make(chan struct{})
	go func() { // a process that does not read must not hold up more than this
		defer close(sent)
		r.write.Lock()
		defer r.write.Unlock()
		r.mu.Lock()
		r.told++
		call.turn = r.told
		r.mu.Unlock()
		_, _ = r.stdin.Write(append(text, '\n')) // that it has ended is noticed below
	}()
	select {
	case a := <-answer:
		if a.Error != nil {
			return a, a.Error
		}
		return a, nil
	case <-r.heard:
		<-r.exited
		return reply{}, &died{r.reason()}
	case <-ctx.Done():
	}
	err = ctx.Err()
	if errors.Is(err, context.DeadlineExceeded) && q.Op != "close" {
		err = fmt.Errorf("%s took longer than %v", r.holding(call).what, r.child.limit())
		r.fail(err)
		<-r.exited
		return reply{}, &died{err}
	}
	return reply{}, err
}

// holding is the request that the process is busy with while a call waits: it
// takes them one after the other.
func (r *run) holding(call *asked) *asked {
	r.mu.Lock()
	defer r.mu.Unlock()
	for _, c := range r.calls {
		if c.turn > 0 && (c.turn < call.turn || call.turn == 0) {
			call = c
		}
	}
	return call
}

// listen hears what the process says.
func (r *run) listen(hear *os.File) {
	defer close(r.heard)
	defer hear.Close()
	go func() { // a descriptor that somebody has inherited keeps nobody waiting
		<-r.exited
		_ = hear.SetReadDeadline(time.Now().Add(100 * time.Millisecond))
	}()
	lines := bufio.NewScanner(hear)
	lines.Buffer(nil, maxReply)
	serving := false
	for lines.Scan() {
		var m struct {
			ID    int              `json:"id"`
			Ready *json.RawMessage `json:"ready"`
			Fatal *refusal         `json:"fatal"`
			Log   *struct {
				Logger, Level, Text string
				Path                []string
			} `json:"log"`
			reply
		}
		if err := json.Unmarshal(lines.Bytes(), &m); err != nil {
			text := lines.Text()
			r.fail(fmt.Errorf("%s says %q instead of what was agreed on", r.child.python, text[:min(len(text), 80)]))
			return
		}
		switch {
		case m.Ready != nil && !serving:
			serving = true
			close(r.ready)
		case m.Fatal != nil:
			r.mu.Lock()
			r.fatal = r.child.refused(m.Fatal)
			r.mu.Unlock()
		case m.Log != nil:
			r.child.record(m.Log.Logger, m.Log.Level, m.Log.Text, m.Log.Path)
		default:
			r.mu.Lock()
			call := r.calls[m.ID]
			delete(r.calls, m.ID)
			r.mu.Unlock()
			if call != nil {
				call.answer <- m.reply
			}
		}
	}
	if err := lines.Err(); err != nil && !errors.Is(err, os.ErrDeadlineExceeded) {
		r.fail(fmt.Errorf("hearing %s: %w", r.child.python, err))
	}
	// Mostly it is about to end. Nobody could ask for anything if it went on.
	if !r.wait(killGrace) {
		r.fail(fmt.Errorf("%s has closed what it is to be heard by; does a driver close files that are not its own?", r.child.python))
	}
}

// printed logs what drivers print.
func (c *child) printed(level slog.Level, text string) {
	name := "python"
	c.mu.Lock()
	if len(c.mounts) == 1 {
		name = c.mounts[0].env.Path
	}
	c.mu.Unlock()
	c.log().With("driver", name).Log(context.Background(), level, text)
}

// refused is why an interpreter cannot host anything.
func (c *child) refused(f *refusal) error {
	if f.Kind == "missing" {
		return fmt.Errorf("%s has no package %s%s", c.python, f.Module, install(f.Module))
	}
	return fmt.Errorf("%s cannot host drivers: %s", c.python, f.Text)
}

// record enters what Python logs into our log.
func (c *child) record(logger, level, text string, path []string) {
	log := c.log()
	switch {
	case path != nil:
		log = log.With("driver", strings.Join(path, "."))
	case strings.HasPrefix(logger, "driver."):
		log = log.With("driver", strings.TrimPrefix(logger, "driver."))
	}
	log.Log(context.Background(), severity(level), text)
}

var _ driver.Resetter = (*hosted)(nil)
