package driver_test

import (
	"context"
	"testing"

	"github.com/jumplead/jumplead/drivers/driver"
)

func BenchmarkExportCall(b *testing.B) {
	type reading struct {
		Voltage float64 `json:"voltage"`
		Current float64 `json:"current"`
	}
	rows := []struct {
		name string
		row  driver.Export
		args []any
	}{
		{"none", driver.Do("on", func(context.Context) error { return nil }), nil},
		{"two", driver.Do2("set", func(_ context.Context, pin int, name string) error { return nil }).Args("pin", "name"),
			[]any{3.0, "led"}},
		{"two reflected", driver.Do2("set", func(_ context.Context, pin uint8, on *bool) error { return nil }).Args("pin", "on"),
			[]any{3.0, true}},
		{"text for text", driver.Call1("echo", func(_ context.Context, s string) (string, error) { return s, nil }), []any{"led"}},
		{"struct", driver.Call("read", func(context.Context) (reading, error) { return reading{5, 2}, nil }), nil},
	}
	for _, r := range rows {
		b.Run(r.name, func(b *testing.B) {
			ctx := b.Context()
			b.ReportAllocs()
			for b.Loop() {
				if _, err := r.row.Call(ctx, r.args); err != nil {
					b.Fatal(err)
				}
			}
		})
	}
}
