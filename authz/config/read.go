package config

import "fmt"

// Read reads a document as Load reads a file, but without the environment: for those who judge a file that is not to be
// used here. The error begins with the name, and line and column where they are known.
func Read(name string, raw []byte) (Config, error) {
	cfg := Default()
	if err := Parse(raw, &cfg); err != nil {
		return Config{}, fmt.Errorf("%s:%w", name, err)
	}
	if at, err := cfg.validate(); err != nil {
		return Config{}, fmt.Errorf("%s%w", place(name, raw, at), err)
	}
	return cfg, nil
}
