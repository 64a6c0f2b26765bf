package config

import (
	"fmt"
	"os"
	"reflect"
	"strings"

	"go.yaml.in/yaml/v3"
)

// Load reads a file, "" for none, and the environment of this process over it. The error is one line that begins with the
// place of the mistake: file, line and column, or the name of the variable.
func Load(path string) (Config, error) {
	var raw []byte
	if path != "" {
		var err error
		if raw, err = os.ReadFile(path); err != nil {
			return Config{}, fmt.Errorf("config: %w", err)
		}
	}
	return Read(path, raw, environment())
}

// Read is Load for a file that was read before, or is meant for another machine. Errors call the file by name.
func Read(name string, raw []byte, environment map[string]string) (Config, error) {
	cfg := Default()
	root, err := parse(raw)
	if err == nil && root != nil {
		err = new(decoder).value(root, reflect.ValueOf(&cfg).Elem(), "")
	}
	if err != nil {
		return Config{}, fmt.Errorf("%s:%w", name, err)
	}
	if find(root, "store.postgres") != nil {
		cfg.Store.Kind = StorePostgres // a variable may say otherwise
	}
	if err := override(&cfg, environment); err != nil {
		return Config{}, err
	}
	if err := checkPostgresVariables(&cfg, environment); err != nil {
		return Config{}, err
	}
	if field, err := cfg.validate(); err != nil {
		_, set := environment[variable(field)]
		return Config{}, fmt.Errorf("%s%w", place(name, root, field, set), err)
	}
	return cfg, nil
}

// variable returns the name of the environment variable that sets a field.
func variable(field string) string {
	return EnvPrefix + strings.ToUpper(strings.NewReplacer(".", "_", "[", "_", "]", "").Replace(field))
}

// place says where a field was set: by its variable, or at a line and column of the file.
func place(file string, root *yaml.Node, field string, byVariable bool) string {
	if byVariable || file == "" {
		return variable(field) + ": "
	}
	if n := find(root, field); n != nil {
		return fmt.Sprintf("%s:%d:%d: %s: ", file, n.Line, n.Column, field)
	}
	return file + ": " + field + ": "
}
