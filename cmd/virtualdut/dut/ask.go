package dut

import (
	"bufio"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net"
	"path/filepath"
	"time"
)

// askLimit is how long a running device may take for an answer, which it has within milliseconds.
const askLimit = 10 * time.Second

// Ask sends a request to the device that runs in a directory, and returns the state after it.
func Ask(ctx context.Context, dir, request string) (s State, err error) {
	ctx, cancel := context.WithTimeout(ctx, askLimit)
	defer cancel()
	defer func() {
		if err != nil {
			err = fmt.Errorf("%s: %w", request, err)
		}
	}()
	conn, err := new(net.Dialer).DialContext(ctx, "unix", filepath.Join(dir, controlName))
	if err != nil {
		return s, fmt.Errorf("%w: is a virtual DUT running in %s?", err, dir)
	}
	defer conn.Close()
	stop := context.AfterFunc(ctx, func() { conn.SetDeadline(time.Unix(1, 0)) })
	defer stop()
	if _, err := io.WriteString(conn, request+"\n"); err != nil {
		return s, err
	}
	line, err := bufio.NewReader(conn).ReadBytes('\n')
	switch {
	case ctx.Err() != nil:
		return s, ctx.Err()
	case err != nil:
		return s, fmt.Errorf("the virtual DUT hung up: %w", err)
	}
	var answer struct {
		State
		refusal
	}
	if err := json.Unmarshal(line, &answer); err != nil {
		return s, err
	}
	if answer.Error != "" {
		return s, errors.New(answer.Error)
	}
	return answer.State, nil
}
