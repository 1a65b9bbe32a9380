package driver_test

import (
	"bytes"
	"encoding/json"
	"fmt"
	"log/slog"
	"strings"
	"testing"

	"github.com/jumplead/jumplead/drivers/driver"
	"github.com/jumplead/jumplead/drivers/driver/drivertest"
)

type account struct {
	Password driver.Secret  `yaml:"password" default:"" doc:"d"`
	Key      *driver.Secret `yaml:"key" doc:"d"`
}

func TestSecretInConfig(t *testing.T) {
	for text, want := range map[string]string{
		"":                               "||",
		"{password: hunter2}":            "hunter2||",
		"{password: 0123}":               "0123||",
		"{password: 12.50, key: on}":     "12.50|on|",
		`{password: "", key: ""}`:        "|",
		"{password: hunter2, key: null}": "hunter2||",
	} {
		var a account
		ps := driver.DecodeConfig(drivertest.YAML(t, text), &a, driver.Pos{}, false)
		got := string(a.Password) + "|"
		if a.Key != nil {
			got += string(*a.Key)
		}
		if got = strings.TrimSuffix(got, "|"); got != strings.TrimSuffix(strings.TrimSuffix(want, "|"), "|") || len(ps) > 0 {
			t.Errorf("DecodeConfig(%s) = %q, %v; want %q and no problem", text, got, ps, want)
		}
	}
	for _, text := range []string{"{password: [hunter2]}", "{password: {hunter2: 1}}", "{key: [hunter2]}"} {
		var a account
		ps := driver.DecodeConfig(drivertest.YAML(t, text), &a, driver.Pos{}, false)
		if ps.Err() == nil || strings.Contains(fmt.Sprint(ps), "hunter2") {
			t.Errorf("DecodeConfig(%s) = %v; want an error without the secret", text, ps)
		}
	}
}

func TestSecretIsNotPrinted(t *testing.T) {
	key := driver.Secret("hunter2")
	a := account{"hunter2", &key}
	var buf bytes.Buffer
	for _, h := range []slog.Handler{slog.NewTextHandler(&buf, nil), slog.NewJSONHandler(&buf, nil)} {
		slog.New(h).Info("config", "config", a, "password", a.Password, "key", a.Key)
	}
	for _, verb := range []string{"%v", "%+v", "%#v", "%s", "%q", "%x"} {
		fmt.Fprintf(&buf, verb+" "+verb+" "+verb+"\n", a, a.Password, a.Key)
	}
	json.NewEncoder(&buf).Encode(a)
	if v, err := driver.Encode(a); err != nil || strings.Contains(fmt.Sprint(v), "hunter2") {
		t.Errorf("Encode(%v) = %v, %v; want it without the secret", a, v, err)
	}
	if got := buf.String(); strings.Contains(got, "hunter2") || strings.Contains(got, fmt.Sprintf("%x", "hunter2")) || !strings.Contains(got, "[secret]") {
		t.Errorf("printed = %s; want [secret] for the secrets", got)
	}
}
