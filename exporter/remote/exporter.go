package remote

import (
	"bytes"
	"context"
	"crypto/tls"
	"crypto/x509"
	"errors"
	"fmt"
	"log/slog"
	"net"
	"os"
	"path/filepath"
	"strings"
	"sync"
	"time"

	"github.com/jumplead/jumplead/drivers/driver"
	"github.com/jumplead/jumplead/exporter/rpc"
	pb "github.com/jumplead/jumplead/proto/jumpstarter/v1"
	"google.golang.org/grpc"
	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/credentials"
	"google.golang.org/grpc/credentials/insecure"
	"google.golang.org/grpc/keepalive"
	"google.golang.org/grpc/status"
	"google.golang.org/protobuf/types/known/emptypb"
)

// ExporterConfig says where an exporter is that is mounted.
type ExporterConfig struct {
	Unix           string        `yaml:"unix,omitempty" doc:"path of the Unix socket that it serves on"`
	Address        string        `yaml:"address,omitempty" doc:"HOST:PORT that it serves on"`
	Command        []string      `yaml:"command,omitempty" doc:"a program that serves on the socket that {socket} stands for; it ends with the exporter"`
	TLS            bool          `yaml:"tls" default:"false" doc:"with address: over TLS"`
	CA             string        `yaml:"ca,omitempty" doc:"with tls: a file of certificates to trust instead of the system's"`
	Passphrase     driver.Secret `yaml:"passphrase,omitempty" doc:"what it asks its clients for"`
	PassphraseFile string        `yaml:"passphrase_file,omitempty" doc:"the passphrase is the first line of this file"`
}

// Validate finds combinations that make no sense.
func (c *ExporterConfig) Validate() error {
	ways := 0
	for _, given := range []bool{c.Unix != "", c.Address != "", len(c.Command) > 0} {
		if given {
			ways++
		}
	}
	var errs []error
	if ways != 1 {
		errs = append(errs, fmt.Errorf("wants one of unix, address, command, got %d of them", ways))
	}
	if c.Address != "" {
		if _, _, err := net.SplitHostPort(c.Address); err != nil {
			errs = append(errs, driver.BadKey("address", "%q is no HOST:PORT", c.Address))
		}
	}
	if c.TLS && c.Address == "" {
		errs = append(errs, driver.BadKey("tls", "only an address is reached over TLS"))
	}
	if c.CA != "" && !c.TLS {
		errs = append(errs, driver.BadKey("ca", "it has no use without tls"))
	}
	if c.Passphrase != "" && c.PassphraseFile != "" {
		errs = append(errs, driver.BadKey("passphrase_file", "passphrase is there, too"))
	}
	if len(c.Command) > 0 && !strings.Contains(strings.Join(c.Command, " "), socketMark) {
		errs = append(errs, driver.BadKey("command", "no argument says where to serve: %s stands for the path of the socket", socketMark))
	}
	return errors.Join(errs...)
}

// Starts implements [driver.Starter].
func (c *ExporterConfig) Starts() bool { return len(c.Command) > 0 }

// socketMark stands for the path of a socket in a command.
const socketMark = "{socket}"

// Exporter mounts all that another exporter exports.
var Exporter = driver.Define(driver.Spec{
	Type: "jumplead.remote.Exporter",
	Contract: driver.Contract{
		Name:   "remote",
		Client: "jumpstarter_driver_composite.client.CompositeClient",
		Kind:   "composite",
	},
	Doc:     "all that another exporter exports",
	Role:    driver.Mounting,
	Grace:   endGrace + killGrace,
	Limited: true,
}, func(ctx context.Context, env *driver.Env, cfg ExporterConfig) (driver.Driver, error) {
	e := &elsewhere{mount: &mount{env: env}, cfg: cfg, tried: make(chan struct{}), ended: make(chan struct{})}
	e.down(errors.New("it was not reached yet"))
	life, end := context.WithCancel(context.WithoutCancel(ctx))
	e.stop = end
	go e.run(life)
	t := time.NewTimer(firstWait)
	defer t.Stop()
	select {
	case <-e.tried:
	case <-t.C: // it may come later
	case <-ctx.Done():
		_ = e.Close()
		return driver.Driver{}, ctx.Err()
	}
	return driver.Driver{Impl: e}, nil
})

const (
	firstWait   = 5 * time.Second  // for an exporter to answer before others are opened
	answerLimit = 10 * time.Second // for it to answer
	endGrace    = 2 * time.Second  // for a process to end by itself
)

// elsewhere is an exporter that is mounted.
type elsewhere struct {
	*mount
	cfg   ExporterConfig
	tried chan struct{} // closed when it was reached, or not, for the first time
	stop  func()
	ended chan struct{}
}

func (e *elsewhere) run(ctx context.Context) {
	defer close(e.ended)
	var p pauses
	first := sync.OnceFunc(func() { close(e.tried) })
	said := ""
	for ctx.Err() == nil {
		began := time.Now()
		err := e.attempt(ctx, func() {
			said = ""
			first()
			e.env.Log.Info("the exporter is there")
		})
		e.down(err)
		if ctx.Err() != nil {
			break
		}
		if text := err.Error(); text != said { // once
			said = text
			e.env.Log.Warn("the exporter cannot be reached; trying again", "error", err)
		}
		first()
		t := time.NewTimer(p.after(time.Since(began)))
		select {
		case <-t.C:
		case <-ctx.Done():
		}
		t.Stop()
	}
	first()
}

// attempt reaches the exporter and returns when it is gone, with why.
func (e *elsewhere) attempt(ctx context.Context, ready func()) error {
	ctx, cancel := context.WithCancel(ctx)
	defer cancel()
	network, address := "tcp", e.cfg.Address
	var program *process
	switch {
	case e.cfg.Unix != "":
		network, address = "unix", e.cfg.Unix
	case len(e.cfg.Command) > 0:
		own, err := folder()
		if err != nil {
			return err
		}
		defer own.Remove()
		dir := own.Path
		network, address = "unix", filepath.Join(dir, "s")
		argv := make([]string, len(e.cfg.Command))
		for i, arg := range e.cfg.Command {
			argv[i] = strings.ReplaceAll(arg, socketMark, address)
		}
		s := spawn{Log: func(level slog.Level, text string) { e.env.Log.Log(ctx, level, text) }}
		if l := e.env.Limits; l != nil {
			s.Limits = l.With(nil, []string{dir})
		}
		if program, err = start(argv, s); err != nil {
			return err
		}
		defer program.end(endGrace)
	}
	opts, err := e.credentials()
	if err != nil {
		return err
	}
	c, err := connect(func(ctx context.Context) (net.Conn, error) {
		return dialUntil(ctx, network, address, program)
	}, opts...)
	if err != nil {
		return err
	}
	defer c.Close()
	asking, done := context.WithTimeout(ctx, answerLimit)
	if program != nil { // there is no other connection to wait for
		go func() {
			select {
			case <-c.broken:
				done()
			case <-asking.Done():
			}
		}()
	}
	report, err := pb.NewExporterServiceClient(c).GetReport(asking, &emptypb.Empty{}, grpc.WaitForReady(program != nil))
	done()
	switch {
	case err == nil:
		err = e.up(c, report.Reports)
	case program != nil && ctx.Err() == nil && status.Code(err) == codes.Canceled:
		err = errors.New("the connection broke before it had reported anything")
	default:
		err = errors.New(status.Convert(err).Message())
	}
	if err != nil {
		err = fmt.Errorf("%s: %w", e.where(address), err)
		if program != nil {
			program.end(endGrace)
			err = fmt.Errorf("%w; %w", err, program.why())
		}
		c.end(err)
		return err
	}
	ready()
	logs := make(chan struct{})
	go func() {
		defer close(logs)
		e.follow(ctx, c)
	}()
	defer func() { cancel(); <-logs }()
	var exited <-chan struct{}
	if program != nil {
		exited = program.exited
	}
	select {
	case <-c.broken:
		err = fmt.Errorf("%s: the connection broke", e.where(address))
	case <-exited:
	case <-ctx.Done():
		err = ctx.Err()
	}
	if program != nil {
		program.end(endGrace)
		err = program.why()
	}
	e.down(err)
	c.end(err)
	return err
}

func (e *elsewhere) where(address string) string {
	if len(e.cfg.Command) > 0 {
		return filepath.Base(e.cfg.Command[0])
	}
	return address
}

// dialUntil dials; when a program is to serve, until it does or has ended.
func dialUntil(ctx context.Context, network, address string, program *process) (net.Conn, error) {
	var d net.Dialer
	for wait := 5 * time.Millisecond; ; wait = min(2*wait, 100*time.Millisecond) {
		c, err := d.DialContext(ctx, network, address)
		if err == nil || program == nil {
			return c, err
		}
		t := time.NewTimer(wait)
		select {
		case <-t.C:
		case <-program.exited:
			t.Stop()
			return nil, errors.New("the program has ended")
		case <-ctx.Done():
			t.Stop()
			return nil, err
		}
	}
}

func (e *elsewhere) credentials() ([]grpc.DialOption, error) {
	creds := insecure.NewCredentials()
	if e.cfg.TLS {
		host, _, _ := net.SplitHostPort(e.cfg.Address)
		t := &tls.Config{ServerName: host, MinVersion: tls.VersionTLS12}
		if e.cfg.CA != "" {
			text, err := os.ReadFile(e.cfg.CA)
			if err != nil {
				return nil, err
			}
			t.RootCAs = x509.NewCertPool()
			if !t.RootCAs.AppendCertsFromPEM(text) {
				return nil, fmt.Errorf("%s: it holds no certificate", e.cfg.CA)
			}
		}
		creds = credentials.NewTLS(t)
	}
	opts := []grpc.DialOption{grpc.WithTransportCredentials(creds)}
	if e.cfg.Address != "" { // a machine that vanished is noticed
		opts = append(opts, grpc.WithKeepaliveParams(keepalive.ClientParameters{Time: 20 * time.Second, Timeout: 10 * time.Second, PermitWithoutStream: true}))
	}
	pass := string(e.cfg.Passphrase)
	if e.cfg.PassphraseFile != "" {
		text, err := os.ReadFile(e.cfg.PassphraseFile)
		if err != nil {
			return nil, err
		}
		line, _, _ := bytes.Cut(text, []byte("\n"))
		pass = strings.TrimSuffix(string(line), "\r")
	}
	if pass != "" {
		opts = append(opts, grpc.WithPerRPCCredentials(passphrase(pass)))
	}
	return opts, nil
}

type passphrase string

func (p passphrase) GetRequestMetadata(context.Context, ...string) (map[string]string, error) {
	return map[string]string{rpc.PassphraseKey: string(p)}, nil
}

func (passphrase) RequireTransportSecurity() bool { return false }

// follow takes over the exporter's log. Records of calls are ours to make.
func (e *elsewhere) follow(ctx context.Context, c *conn) {
	s, err := pb.NewExporterServiceClient(c).LogStream(ctx, &emptypb.Empty{})
	for err == nil {
		var r *pb.LogStreamResponse
		if r, err = s.Recv(); err != nil || r.GetOperation() != "" {
			continue
		}
		log := e.env.Exporter().With("mount", e.env.Path)
		if r.GetSource() == pb.LogSource_LOG_SOURCE_DRIVER {
			log = e.env.Log
		}
		log.Log(ctx, severity(r.Severity), r.Message)
	}
}

func severity(name string) slog.Level {
	if l, ok := driver.ParseLevel(name); ok {
		return l
	}
	return slog.LevelInfo
}

// Reset resets what is mounted.
func (e *elsewhere) Reset(ctx context.Context) error {
	c, _, why := e.now()
	if c == nil {
		return unavailable(why)
	}
	_, err := pb.NewExporterServiceClient(c).Reset(ctx, &pb.ResetRequest{})
	if status.Code(err) == codes.Unimplemented { // the Python exporter has none
		return nil
	}
	return link{c, e.mount, ""}.Cause(err)
}

// Close lets the exporter go.
func (e *elsewhere) Close() error {
	e.stop()
	<-e.ended
	return nil
}
