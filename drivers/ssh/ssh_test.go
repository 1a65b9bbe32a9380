package ssh_test

import (
	"context"
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/jumplead/jumplead/drivers/driver"
	"github.com/jumplead/jumplead/drivers/driver/drivertest"
	"github.com/jumplead/jumplead/drivers/network"
	"github.com/jumplead/jumplead/drivers/network/echo"
	"github.com/jumplead/jumplead/drivers/ssh"
)

const key = "-----BEGIN OPENSSH PRIVATE KEY-----\nAAAA+topsecret/\n-----END OPENSSH PRIVATE KEY-----\n"

// bench gives a node the child that it needs.
func bench(log *drivertest.Log) drivertest.Bench {
	return drivertest.Bench{Log: log, Specs: []driver.Spec{echo.Network}, Children: []driver.Decl{{Name: "tcp", Type: echo.Network.Type}}}
}

func open(t *testing.T, config string) *ssh.Client {
	t.Helper()
	return ssh.NewClient(bench(nil).Open(t, config, ssh.Wrapper))
}

func quote(s string) string { return fmt.Sprintf("%q", s) }

func save(t *testing.T, text string) string {
	t.Helper()
	name := filepath.Join(t.TempDir(), "id")
	if err := os.WriteFile(name, []byte(text), 0o600); err != nil {
		t.Fatal(err)
	}
	return name
}

func TestSpec(t *testing.T) {
	bench(nil).Spec(t, ssh.Wrapper, "")
	bench(nil).Lifecycle(t, "{default_username: root, ssh_identity_file: /nonexistent}", ssh.Wrapper)
	for config, want := range map[string]string{
		"{ssh_identity: topsecret, ssh_identity_file: /k}": "ssh_identity_file: Cannot specify both ssh_identity and ssh_identity_file",
		"{ssh_identity: [topsecret]}":                      "ssh_identity: wants text, got a list",
		"{default_user: root}":                             `unknown key "default_user"`,
	} {
		_, problems := bench(nil).Plan(t, config, ssh.Wrapper)
		if err := problems.Err(); err == nil || !strings.Contains(err.Error(), want) || strings.Contains(err.Error(), "topsecret") {
			t.Errorf("Plan(%s) = %v; want %s", config, err, want)
		}
	}
	_, problems := drivertest.Bench{}.Plan(t, "", ssh.Wrapper)
	if err := problems.Err(); err == nil || !strings.Contains(err.Error(), `child "tcp" is missing`) {
		t.Errorf("Plan() without a child = %v; want an error that names it", err)
	}
}

func TestLogin(t *testing.T) {
	const command = "ssh -o StrictHostKeyChecking=no -o UserKnownHostsFile=/dev/null -o LogLevel=ERROR"
	for _, test := range []struct{ config, user, command, key string }{
		{"", "", command, ""},
		{"{default_username: root}", "root", command, ""},
		{"{ssh_command: ssh -F none}", "", "ssh -F none", ""},
		{"{ssh_identity: " + quote(key) + "}", "", command, key},
		{"{ssh_identity_file: " + quote(save(t, key)) + "}", "", command, key},
		{`{ssh_identity: "", ssh_identity_file: ` + quote(save(t, key)) + "}", "", command, key},
		{"{ssh_identity: null, ssh_identity_file: null}", "", command, ""},
		{"{ssh_identity_file: " + quote(save(t, "")) + "}", "", command, ""},
		{"{ssh_identity_file: " + quote(save(t, strings.ReplaceAll(key, "\n", "\r\n"))) + "}", "", command, key},
	} {
		c := open(t, test.config)
		user, err1 := c.Username(t.Context())
		command, err2 := c.Command(t.Context())
		key, err3 := c.Identity(t.Context())
		if user != test.user || command != test.command || key != test.key || err1 != nil || err2 != nil || err3 != nil {
			t.Errorf("login of %s = %q, %q, %q, %v, %v, %v; want %q, %q, %q", test.config, user, command, key, err1, err2, err3,
				test.user, test.command, test.key)
		}
	}
}

// None is null on the wire, as clients expect.
func TestNoIdentity(t *testing.T) {
	c := bench(nil).Open(t, "", ssh.Wrapper)
	if got, err := c.Call(t.Context(), "get_ssh_identity"); got != nil || err != nil {
		t.Errorf("get_ssh_identity() = %v, %v; want nil, nil", got, err)
	}
}

// The file is read when it is first asked for, and then no more.
func TestIdentityFileIsReadOnce(t *testing.T) {
	name := filepath.Join(t.TempDir(), "id")
	c := open(t, "{ssh_identity_file: "+quote(name)+"}")
	want := "Failed to read ssh_identity_file '" + name + "': no such file or directory"
	if got, err := c.Identity(t.Context()); err == nil || err.Error() != want || driver.Classify(err) != driver.Internal {
		t.Errorf("Identity() without the file = %q, %v (%v); want %s (%v)", got, err, driver.Classify(err), want, driver.Internal)
	}
	if err := os.WriteFile(name, []byte(key), 0o600); err != nil {
		t.Fatal(err)
	}
	if got, err := c.Identity(t.Context()); got != key || err != nil {
		t.Errorf("Identity() once the file is there = %q, %v; want the key", got, err)
	}
	if err := os.WriteFile(name, []byte("another"), 0o600); err != nil {
		t.Fatal(err)
	}
	if got, err := c.Identity(t.Context()); got != key || err != nil {
		t.Errorf("Identity() after the file changed = %q, %v; want the key that was read first", got, err)
	}
}

func TestSecretsAreNotLogged(t *testing.T) {
	log := &drivertest.Log{}
	for _, config := range []string{"{log_level: DEBUG, ssh_identity: " + quote(key) + "}", "{log_level: DEBUG, ssh_identity_file: " + quote(save(t, key)) + "}"} {
		tree := bench(log).Tree(t, config, ssh.Wrapper)
		if got, err := ssh.NewClient(tree.Root.Caller()).Identity(t.Context()); got != key || err != nil {
			t.Errorf("Identity() = %q, %v; want the key", got, err)
		}
		fmt.Fprintf(log, "%v %+v %#v", tree.Root.Config, tree.Root.Config, tree.Reports())
	}
	if got := log.String(); strings.Contains(got, "topsecret") {
		t.Errorf("log = %s; want it without the key", got)
	}
}

// What clients connect to is the child.
func TestChild(t *testing.T) {
	tree := bench(nil).Tree(t, "", ssh.Wrapper)
	conn, err := network.NewClient(tree.Root.Children[0].Caller()).Connect(context.Background())
	if err != nil {
		t.Fatal(err)
	}
	defer conn.Close()
	if got := drivertest.Exchange(t, conn, "SSH-2.0-x"); got != "SSH-2.0-x" {
		t.Errorf("Exchange(SSH-2.0-x) = %q; want the same", got)
	}
}
