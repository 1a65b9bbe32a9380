package tmt_test

import (
	"fmt"
	"strings"
	"testing"

	"github.com/jumplead/jumplead/drivers/driver"
	"github.com/jumplead/jumplead/drivers/driver/drivertest"
	"github.com/jumplead/jumplead/drivers/network/echo"
	"github.com/jumplead/jumplead/drivers/tmt"
)

// bench gives a node the child that it needs.
func bench(log *drivertest.Log) drivertest.Bench {
	return drivertest.Bench{Log: log, Specs: []driver.Spec{echo.Network}, Children: []driver.Decl{{Name: "ssh", Type: echo.Network.Type}}}
}

func TestSpec(t *testing.T) {
	bench(nil).Spec(t, tmt.TMT, "")
	bench(nil).Lifecycle(t, "{reboot_cmd: j power cycle}", tmt.TMT)
	for config, want := range map[string]string{
		"{default_password: [topsecret]}": "default_password: wants text, got a list",
		"{password: topsecret}":           `unknown key "password"`,
	} {
		_, problems := bench(nil).Plan(t, config, tmt.TMT)
		if err := problems.Err(); err == nil || !strings.Contains(err.Error(), want) || strings.Contains(err.Error(), "topsecret") {
			t.Errorf("Plan(%s) = %v; want %s", config, err, want)
		}
	}
	_, problems := drivertest.Bench{}.Plan(t, "", tmt.TMT)
	if err := problems.Err(); err == nil || !strings.Contains(err.Error(), `child "ssh" is missing`) {
		t.Errorf("Plan() without a child = %v; want an error that names it", err)
	}
}

func TestGuest(t *testing.T) {
	for _, test := range []struct{ config, reboot, user, password string }{
		{"", "", "", ""},
		{"{reboot_cmd: j power cycle, default_username: root, default_password: topsecret}", "j power cycle", "root", "topsecret"},
		{"{default_username: root, default_password: 0123}", "", "root", "0123"},
	} {
		c := tmt.NewClient(bench(nil).Open(t, test.config, tmt.TMT))
		reboot, err1 := c.RebootCommand(t.Context())
		user, password, err2 := c.Login(t.Context())
		if reboot != test.reboot || user != test.user || password != test.password || err1 != nil || err2 != nil {
			t.Errorf("guest of %s = %q, %q, %q, %v, %v; want %q, %q, %q", test.config, reboot, user, password, err1, err2,
				test.reboot, test.user, test.password)
		}
	}
}

func TestSecretsAreNotLogged(t *testing.T) {
	log := &drivertest.Log{}
	tree := bench(log).Tree(t, "{log_level: DEBUG, default_password: topsecret}", tmt.TMT)
	_, password, err := tmt.NewClient(tree.Root.Caller()).Login(t.Context())
	fmt.Fprintf(log, "%v %+v %#v", tree.Root.Config, tree.Root.Config, tree.Reports())
	if got := log.String(); password != "topsecret" || err != nil || strings.Contains(got, "topsecret") {
		t.Errorf("Login() = %q, %v with the log %s; want the password, and a log without it", password, err, got)
	}
}
