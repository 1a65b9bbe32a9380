package vnc_test

import (
	"strings"
	"testing"

	"github.com/jumplead/jumplead/drivers/driver"
	"github.com/jumplead/jumplead/drivers/driver/drivertest"
	"github.com/jumplead/jumplead/drivers/network/echo"
	"github.com/jumplead/jumplead/drivers/vnc"
)

// bench gives a node the child that it needs.
var bench = drivertest.Bench{Specs: []driver.Spec{echo.Network}, Children: []driver.Decl{{Name: "tcp", Type: echo.Network.Type}}}

func TestSpec(t *testing.T) {
	bench.Spec(t, vnc.VNC, "")
	bench.Lifecycle(t, "{default_encrypt: true}", vnc.VNC)
	for config, want := range map[string]string{
		"{encrypt: true}":       `unknown key "encrypt"`,
		"{default_encrypt: 16}": "default_encrypt: wants true or false, got 16",
	} {
		_, problems := bench.Plan(t, config, vnc.VNC)
		if err := problems.Err(); err == nil || !strings.Contains(err.Error(), want) {
			t.Errorf("Plan(%s) = %v; want %s", config, err, want)
		}
	}
	_, problems := drivertest.Bench{}.Plan(t, "", vnc.VNC)
	if err := problems.Err(); err == nil || !strings.Contains(err.Error(), `child "tcp" is missing`) {
		t.Errorf("Plan() without a child = %v; want an error that names it", err)
	}
}

func TestDefaultEncrypt(t *testing.T) {
	for config, want := range map[string]bool{"": false, "{default_encrypt: true}": true, "{default_encrypt: off}": false} {
		c := vnc.NewClient(bench.Open(t, config, vnc.VNC))
		if got, err := c.DefaultEncrypt(t.Context()); got != want || err != nil {
			t.Errorf("DefaultEncrypt() of %q = %t, %v; want %t", config, got, err, want)
		}
	}
}
