package config

import (
	"errors"
	"fmt"
	"maps"
	"os"
	"reflect"
	"regexp"
	"slices"
	"strconv"
	"strings"

	"github.com/agnivade/levenshtein"
	"github.com/caarlos0/env/v11"
)

// CommandVariables are the variables that the command line reads, besides those of the fields.
var CommandVariables = []string{EnvPrefix + "CONFIG", EnvPrefix + "ADMIN", EnvPrefix + "TOKEN_FILE", EnvPrefix + "DATA_DIR"}

// testPrefix begins the names of variables that only tests read.
const testPrefix = EnvPrefix + "TEST_"

// fieldVariables are the variables of all fields. The index of a list entry is always 0 in them.
var fieldVariables = variablesOf(reflect.TypeFor[Config](), EnvPrefix)

func variablesOf(t reflect.Type, prefix string) (names []string) {
	for _, f := range reflect.VisibleFields(t) {
		nested, isNested := f.Tag.Lookup("envPrefix")
		name, isField := f.Tag.Lookup("env")
		switch {
		case isNested && isField:
			names = append(append(names, prefix+name), variablesOf(f.Type, prefix+nested)...)
		case isNested && f.Type.Kind() == reflect.Slice:
			names = append(names, variablesOf(f.Type.Elem(), prefix+nested+"0_")...)
		case isNested:
			names = append(names, variablesOf(f.Type, prefix+nested)...)
		case isField:
			names = append(names, prefix+name)
		}
	}
	return names
}

var (
	index = regexp.MustCompile(`_(\d+)_`)
	// injected matches variables that Kubernetes sets in every container of a namespace with a Service called tollkeeper or
	// tollkeeper-something: https://kubernetes.io/docs/concepts/services-networking/service/#environment-variables.
	injected = regexp.MustCompile(`^TOLLKEEPER(_[A-Z0-9_]+)?_(SERVICE_HOST|SERVICE_PORT(_[A-Z0-9_]+)?|PORT_\d+_(TCP|UDP|SCTP)(_(PROTO|PORT|ADDR))?)$`)
	// injectedPort matches the one whose name could also be a mistake of a person. Its value is a URL then, such as
	// tcp://10.96.0.7:9001, where a person writes a number.
	injectedPort  = regexp.MustCompile(`^TOLLKEEPER(_[A-Z0-9_]+)?_PORT$`)
	injectedValue = regexp.MustCompile(`^(tcp|udp|sctp)://`)
)

// CheckEnvironment returns an error if the environment of this process has a variable that begins with EnvPrefix and that
// nothing reads. It is probably misspelt, and ignoring it would hide that.
func CheckEnvironment() error { return checkVariables(environment()) }

func environment() map[string]string {
	out := make(map[string]string)
	for _, pair := range os.Environ() {
		if name, value, ok := strings.Cut(pair, "="); ok && strings.HasPrefix(name, EnvPrefix) {
			out[name] = value
		}
	}
	return out
}

func checkVariables(environment map[string]string) error {
	for _, name := range slices.Sorted(maps.Keys(environment)) {
		if !strings.HasPrefix(name, EnvPrefix) || knownVariable(name) || foreign(name, environment[name]) {
			continue
		}
		return fmt.Errorf("%s: there is no such variable: the nearest is %s", name, nearest(name))
	}
	return nil
}

func knownVariable(name string) bool {
	return slices.Contains(fieldVariables, index.ReplaceAllString(name, "_0_")) || slices.Contains(CommandVariables, name)
}

// foreign reports whether a variable that begins with EnvPrefix was not set for us.
func foreign(name, value string) bool {
	return strings.HasPrefix(name, testPrefix) || injected.MatchString(name) ||
		injectedPort.MatchString(name) && injectedValue.MatchString(value)
}

// nearest returns the variable that was probably meant.
func nearest(name string) string {
	plain := index.ReplaceAllString(name, "_0_")
	best, distance := "", len(plain)+1<<10
	for _, known := range slices.Concat(fieldVariables, CommandVariables) {
		d := levenshtein.ComputeDistance(plain, known)
		if strings.HasSuffix(known, strings.TrimPrefix(plain, strings.TrimSuffix(EnvPrefix, "_"))) {
			d = 0 // the section was left out
		}
		if d < distance {
			best, distance = known, d
		}
	}
	for _, at := range index.FindAllString(name, -1) { // the same index as in name
		best = strings.Replace(best, "_0_", at, 1)
	}
	return best
}

// override sets the fields of cfg for which the environment has variables. The error begins with the variable.
func override(cfg *Config, environment map[string]string) error {
	if err := checkVariables(environment); err != nil {
		return err
	}
	if err := env.ParseWithOptions(cfg, env.Options{Prefix: EnvPrefix, Environment: environment}); err != nil {
		return unreadable(err, environment)
	}
	for _, l := range []struct {
		list string
		n    int
	}{{"TOKENS_ISSUERS_", len(cfg.Tokens.Issuers)}, {"REVOCATION_CLIENTS_", len(cfg.Revocation.Clients)}} {
		for _, name := range slices.Sorted(maps.Keys(environment)) {
			rest, ok := strings.CutPrefix(name, EnvPrefix+l.list)
			at, _, _ := strings.Cut(rest, "_")
			if i, err := strconv.Atoi(at); ok && err == nil && i >= l.n {
				return fmt.Errorf("%s: the list has no place %d: count from 0, without a gap", name, i)
			}
		}
	}
	return nil
}

// unreadable makes an error that names the variable which cannot be read: the parser's own names a field in Go.
func unreadable(err error, environment map[string]string) error {
	for _, name := range slices.Sorted(maps.Keys(environment)) {
		value := environment[name]
		var wrong env.ParseError
		alone := env.Options{Prefix: EnvPrefix, Environment: map[string]string{index.ReplaceAllString(name, "_0_"): value}}
		if !errors.As(env.ParseWithOptions(&Config{}, alone), &wrong) {
			continue
		}
		t := wrong.Type
		if t.Kind() == reflect.Pointer {
			t = t.Elem()
		}
		if t.Kind() == reflect.Bool {
			return fmt.Errorf("%s: %q: want true or false", name, value)
		}
		return fmt.Errorf("%s: %q: want a number", name, value) // texts can always be read
	}
	return fmt.Errorf("environment: %s", strings.TrimPrefix(err.Error(), "env: "))
}
