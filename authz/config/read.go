package config

import "fmt"

// Read reads a document as Load reads a file, with the variables of an environment over it that is not that of this
// process: for those who judge a file that is not to be used here. The error begins with the name, and line and column
// where they are known.
func Read(name string, raw []byte, environment map[string]string) (Config, error) {
	cfg := Default()
	if err := Parse(raw, &cfg); err != nil {
		return Config{}, fmt.Errorf("%s:%w", name, err)
	}
	if err := override(&cfg, environment); err != nil {
		return Config{}, err
	}
	if at, err := cfg.validate(); err != nil {
		_, set := environment[variable(at)]
		return Config{}, fmt.Errorf("%s%w", place(name, raw, at, set), err)
	}
	return cfg, nil
}
