package serial

import (
	"context"
	"io"
	"iter"
	"testing"

	"github.com/jumplead/jumplead/hw/serial/pty"
)

// stuck is a node of which the line cannot be opened.
type stuck struct{ opening chan struct{} }

func (stuck) Call(context.Context, string, ...any) (any, error)          { return nil, nil }
func (stuck) Feed(context.Context, string, ...any) iter.Seq2[any, error] { return nil }

func (s stuck) Stream(ctx context.Context, _ string) (io.ReadWriteCloser, error) {
	close(s.opening)
	<-ctx.Done()
	return nil, ctx.Err()
}

// Who waits for a line to open can leave, though the terminal is raw.
func TestConsoleThatDoesNotOpen(t *testing.T) {
	master, slave, err := pty.Open()
	if err != nil {
		t.Fatal(err)
	}
	defer master.Close()
	defer slave.Close()
	s := stuck{make(chan struct{})}
	done := make(chan error, 1)
	go func() { done <- console(t.Context(), NewClient(s), slave, io.Discard) }()
	<-s.opening
	if _, err := master.Write([]byte("x\x03\x02\x02\x02")); err != nil {
		t.Fatal(err)
	}
	if err := <-done; err != nil {
		t.Errorf("console() = %v; want nil", err)
	}
}
