package driver_test

import (
	"context"
	"errors"
	"fmt"
	"io/fs"
	"strings"
	"testing"
	"testing/synctest"
	"time"

	"github.com/jumplead/jumplead/drivers/driver"
	"github.com/jumplead/jumplead/drivers/driver/drivertest"
	"github.com/jumplead/jumplead/hw"
)

// looked is a config whose Probe does what its word says.
type looked struct {
	How string `yaml:"how" doc:"what a probe does"`
}

func (c *looked) Probe(ctx context.Context, env *driver.Env) (string, error) {
	switch c.How {
	case "panic":
		panic("no such register")
	case "wait":
		<-ctx.Done()
		return "", ctx.Err()
	case "sleep": // and heed no context
		time.Sleep(time.Hour)
	case "absent":
		return "", hw.Mark(hw.ErrAbsent, errors.New("nothing there"))
	}
	return "found " + env.Path, nil
}

var lookedSpec = driver.Define(driver.Spec{Type: "test.Looked", Contract: driver.Contract{Name: "test", Client: "test.Client"}},
	func(context.Context, *driver.Env, looked) (driver.Driver, error) {
		return driver.Driver{}, errors.New("a probe opens nothing")
	})

// Probe asks all nodes at the same time, in the order of the file and each for its
// time only; refs are not asked again.
func TestProbe(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		child := func(name, how string) driver.Decl {
			return driver.Decl{Name: name, Type: "test.Looked", Config: drivertest.YAML(t, "how: "+how)}
		}
		plain := driver.Define(driver.Spec{Type: "test.Plain", Contract: driver.Contract{Name: "test", Client: "test.Client"}},
			func(context.Context, *driver.Env, struct{}) (driver.Driver, error) { return driver.Driver{}, nil })
		tree, problems := driver.Plan(driver.Decl{Type: "test.Plain", Children: []driver.Decl{
			child("a", "well"), child("b", "wait"), child("c", "sleep"), child("d", "absent"), child("e", "panic"),
			{Name: "again", Ref: "a"}, child("f", "wait"),
		}}, driver.Options{Specs: []driver.Spec{lookedSpec, plain}})
		if err := problems.Err(); err != nil {
			t.Fatalf("Plan() = %v; want no error", err)
		}
		start := time.Now()
		var got []string
		for _, f := range tree.Probe(t.Context(), 10*time.Second) {
			got = append(got, fmt.Sprintf("%s %s %s", f.Node.Path, f.Condition, f.Text))
		}
		want := []string{
			"a ok found a",
			"b wrong no answer within 10s: context deadline exceeded",
			"c wrong no answer within 10s: context deadline exceeded",
			"d absent nothing there",
			"e wrong panic: no such register",
			"f wrong no answer within 10s: context deadline exceeded",
		}
		if strings.Join(got, "\n") != strings.Join(want, "\n") || time.Since(start) != 10*time.Second {
			t.Errorf("Probe() = %q after %v; want %q after 10s", got, time.Since(start), want)
		}
		time.Sleep(time.Hour) // of the bubble: c wakes up, and finds nobody waiting
	})
}

func TestConditionOf(t *testing.T) {
	for _, test := range []struct {
		err  error
		want driver.Condition
	}{
		{nil, driver.Healthy},
		{hw.Mark(hw.ErrAbsent, errors.New("x")), driver.Absent},
		{fmt.Errorf("x: %w", driver.ErrUnavailable), driver.Absent},
		{&fs.PathError{Op: "stat", Path: "x", Err: fs.ErrNotExist}, driver.Absent},
		{hw.Mark(hw.ErrBusy, errors.New("x")), driver.Busy},
		{fmt.Errorf("x: %w", driver.ErrBusy), driver.Busy},
		{&fs.PathError{Op: "open", Path: "x", Err: fs.ErrPermission}, driver.Forbidden},
		{hw.Mark(hw.ErrWrong, errors.New("x")), driver.Wrong},
		{hw.Mark(hw.ErrWrong, errors.ErrUnsupported), driver.Wrong},
		{errors.New("x"), driver.Wrong},
		{context.DeadlineExceeded, driver.Wrong},
	} {
		if got := driver.ConditionOf(test.err); got != test.want {
			t.Errorf("ConditionOf(%v) = %s; want %s", test.err, got, test.want)
		}
	}
}
