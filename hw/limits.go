package hw

import (
	"errors"
	"fmt"
	"path"
	"slices"
	"strconv"
	"strings"
	"time"
)

// Limits are what a program may take of the machine, with all that it starts. What is zero is not limited. How they are
// kept, and which of them a machine can keep, is told in hw/process.
type Limits struct {
	Memory          Memory        `yaml:"memory,omitempty" doc:"how much memory it may use: 200M, 1G; at least 16M"`
	CPU             Share         `yaml:"cpu,omitempty" doc:"its share of the processors: 50% is half of one, 200% are two"`
	CPUTime         time.Duration `yaml:"cpu_time,omitempty" min:"1" doc:"seconds that each of its processes may compute"`
	Processes       int           `yaml:"processes,omitempty" min:"1" doc:"how many processes and threads there may be"`
	OpenFiles       int           `yaml:"open_files,omitempty" min:"16" doc:"how many files and connections each of its processes may have open"`
	FileSize        Size          `yaml:"file_size,omitempty" doc:"how large the files may become that it writes: 100M"`
	NoNewPrivileges bool          `yaml:"no_new_privileges,omitempty" doc:"sudo and the like give it no more rights than it has"`
	Read            []Path        `yaml:"read,omitempty" doc:"folders and files that it may read, besides the system's; with this or write, all others are out of its reach"`
	Write           []Path        `yaml:"write,omitempty" doc:"folders, files and devices that it may read and change"`
}

// Files reports whether there are files that are out of reach.
func (l *Limits) Files() bool { return l.Read != nil || l.Write != nil }

// With is the limits with more files within reach, where some are out of it. The paths are absolute.
func (l Limits) With(read, write []string) *Limits {
	if l.Files() {
		l.Read, l.Write = slices.Clone(l.Read), slices.Clone(l.Write)
		for _, p := range read {
			l.Read = append(l.Read, Path(p))
		}
		for _, p := range write {
			l.Write = append(l.Write, Path(p))
		}
	}
	return &l
}

// String lists the limits for people.
func (l *Limits) String() string {
	var list []string
	add := func(there bool, name string, value any) {
		if there {
			list = append(list, fmt.Sprintf("%s %v", name, value))
		}
	}
	add(l.Memory > 0, "memory", l.Memory)
	add(l.CPU > 0, "cpu", l.CPU)
	add(l.CPUTime > 0, "cpu_time", l.CPUTime)
	add(l.Processes > 0, "processes", l.Processes)
	add(l.OpenFiles > 0, "open_files", l.OpenFiles)
	add(l.FileSize > 0, "file_size", l.FileSize)
	add(l.NoNewPrivileges, "no_new_privileges", l.NoNewPrivileges)
	add(l.Read != nil, "read", l.Read)
	add(l.Write != nil, "write", l.Write)
	return strings.Join(list, ", ")
}

// Size is a number of bytes. Its text may have a unit: K, M, G and T are 1024 bytes and so on.
type Size uint64

// units are the letters of sizes, each 1024 times the one before.
const units = "KMGT"

// MarshalText implements [encoding.TextMarshaler].
func (s Size) MarshalText() ([]byte, error) { return []byte(s.String()), nil }

// UnmarshalText implements [encoding.TextUnmarshaler].
func (s *Size) UnmarshalText(text []byte) error {
	number, shift := strings.TrimSpace(string(text)), 0
	number = strings.TrimSuffix(number, "iB")
	if n := len(number); n > 0 {
		if i := strings.IndexByte(units, number[n-1]); i >= 0 {
			number, shift = strings.TrimSpace(number[:n-1]), 10*(i+1)
		}
	}
	n, err := strconv.ParseUint(number, 10, 63)
	if err != nil || n == 0 || n<<shift>>shift != n || n<<shift > 1<<62 {
		return fmt.Errorf("%q is no size: write a number with K, M, G or T, such as 200M", text)
	}
	*s = Size(n << shift)
	return nil
}

func (s Size) String() string {
	i := -1
	for s != 0 && s%1024 == 0 && i+1 < len(units) {
		s, i = s/1024, i+1
	}
	text := strconv.FormatUint(uint64(s), 10)
	if i >= 0 {
		text += units[i : i+1]
	}
	return text
}

// Memory is a [Size] in which a program can be started.
type Memory Size

const leastMemory Memory = 16 << 20

// MarshalText implements [encoding.TextMarshaler].
func (m Memory) MarshalText() ([]byte, error) { return []byte(m.String()), nil }

// UnmarshalText implements [encoding.TextUnmarshaler].
func (m *Memory) UnmarshalText(text []byte) error {
	var s Size
	if err := s.UnmarshalText(text); err != nil {
		return err
	}
	if Memory(s) < leastMemory {
		return fmt.Errorf("%s is out of range: at least %v", text, leastMemory)
	}
	*m = Memory(s)
	return nil
}

func (m Memory) String() string { return Size(m).String() }

// Share is a share of processors, in percent of one.
type Share int

const mostShare Share = 100 * 1024

// MarshalText implements [encoding.TextMarshaler].
func (s Share) MarshalText() ([]byte, error) { return []byte(s.String()), nil }

// UnmarshalText implements [encoding.TextUnmarshaler].
func (s *Share) UnmarshalText(text []byte) error {
	number, ok := strings.CutSuffix(strings.TrimSpace(string(text)), "%")
	n, err := strconv.Atoi(strings.TrimSpace(number))
	if !ok || err != nil {
		return fmt.Errorf("%q is no share: write a percentage of one processor, such as 50%%", text)
	}
	if n < 1 || n > int(mostShare) {
		return fmt.Errorf("%s is out of range: 1%% to %v", text, mostShare)
	}
	*s = Share(n)
	return nil
}

func (s Share) String() string { return strconv.Itoa(int(s)) + "%" }

// Path is the absolute path of a file or a folder.
type Path string

// UnmarshalText implements [encoding.TextUnmarshaler].
func (p *Path) UnmarshalText(text []byte) error {
	s := string(text)
	switch {
	case !path.IsAbs(s):
		return fmt.Errorf("%q is no absolute path", s)
	case strings.ContainsRune(s, 0):
		return errors.New("a path holds no NUL byte")
	}
	*p = Path(path.Clean(s))
	return nil
}
