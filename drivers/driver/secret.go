package driver

import "encoding"

// Secret is the text of a config key that nobody should read in a log: a
// password, a private key. Where values are printed it is "[secret]", and a
// mistake in a config file is reported without it. What is text to nobody else,
// such as a password of digits, is text to it. string(s) is what it holds.
type Secret string

var _ encoding.TextUnmarshaler = (*Secret)(nil)

const hidden = "[secret]"

func (Secret) String() string   { return hidden }
func (Secret) GoString() string { return hidden }

// MarshalText is for loggers and for whoever prints a config: it hides the text,
// too.
func (Secret) MarshalText() ([]byte, error) { return []byte(hidden), nil }

// UnmarshalText takes any text.
func (s *Secret) UnmarshalText(text []byte) error {
	*s = Secret(text)
	return nil
}
