package rulefile

import (
	"errors"
	"fmt"
	"os"
	"regexp"
	"strings"
)

// A Secret says where a secret is. A field with the tag "token" is set by token_file or token_env; token, with the
// secret itself, is refused.
type Secret struct {
	File     secretFile
	Variable secretVariable
}

type (
	secretFile     string
	secretVariable string
)

// UnmarshalText refuses what is the secret itself. No error repeats it.
func (s *secretFile) UnmarshalText(text []byte) error {
	if looksSecret(text) {
		return errors.New("want the path of a file, never the secret itself")
	}
	*s = secretFile(text)
	return nil
}

var validVariable = regexp.MustCompile(`^[A-Za-z_][A-Za-z0-9_]*$`)

// UnmarshalText refuses what is no name.
func (s *secretVariable) UnmarshalText(text []byte) error {
	if looksSecret(text) || !validVariable.Match(text) {
		return errors.New("want the name of an environment variable, never the secret itself")
	}
	*s = secretVariable(text)
	return nil
}

// looksSecret recognises Slack's tokens and webhook URLs, and secrets of Standard Webhooks.
func looksSecret(text []byte) bool {
	s := string(text)
	return strings.HasPrefix(s, "xox") || strings.HasPrefix(s, "whsec_") || strings.HasPrefix(s, "https:")
}

// Given reports whether the file says where the secret is.
func (s Secret) Given() bool { return s != Secret{} }

// Check checks that only one place is given.
func (s Secret) Check(f *File, at, name string) {
	f.OneOf(at, name+"_file and "+name+"_env", s.File != "", s.Variable != "")
}

// Read returns the secret.
func (s Secret) Read() (string, error) {
	if s.File == "" {
		if value := os.Getenv(string(s.Variable)); value != "" {
			return value, nil
		}
		return "", fmt.Errorf("the environment variable %s is not set: it must have the secret", s.Variable)
	}
	data, err := os.ReadFile(string(s.File))
	if err != nil {
		return "", fmt.Errorf("read a secret: %w", err)
	}
	if value := strings.TrimSpace(string(data)); value != "" {
		return value, nil
	}
	return "", fmt.Errorf("the file %s is empty: it must have the secret", s.File)
}
