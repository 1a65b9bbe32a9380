package tmt

import (
	"strings"
	"testing"
)

func TestArguments(t *testing.T) {
	const step = "provision -h connect -g h -P 22"
	for _, test := range []struct {
		p          provision
		args, want string
	}{
		{provision{}, "plans ls", "plans ls"},
		{provision{}, "run -a", "run -a " + step},
		{provision{}, "run provision", "run " + step},
		{provision{}, "run provision -h local --x y plan --name z", "run " + step + " plan --name z"},
		{provision{}, "provision -g old report", step + " report"},
		{provision{user: "u", password: "p", reboot: "r"}, "run", "run " + step + " -u u -p p --feeling-safe --hard-reboot r"},
	} {
		test.p.host, test.p.port = "h", 22
		args := strings.Fields(test.args)
		if got := strings.Join(test.p.arguments(args), " "); got != test.want || strings.Join(args, " ") != test.args {
			t.Errorf("arguments(%s) = %s; want %s", test.args, got, test.want)
		}
	}
}
