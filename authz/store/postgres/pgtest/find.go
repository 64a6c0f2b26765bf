package pgtest

import (
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
)

// oldest is the oldest major version that is supported.
const oldest = 15

// Find returns the folder of PostgreSQL's programs: $POSTGRES_BIN, else that of the postgres on PATH, else the newest of the
// distribution's, else that of the version that requirements.txt pins, which is installed the first time.
func Find() (string, error) {
	if dir := os.Getenv("POSTGRES_BIN"); dir != "" {
		if err := usable(dir); err != nil {
			return "", fmt.Errorf("the environment variable POSTGRES_BIN: %w", err)
		}
		return dir, nil
	}
	var dirs []string
	if path, err := exec.LookPath("postgres"); err == nil {
		if path, err = filepath.EvalSymlinks(path); err == nil { // the other programs are beside the file, not the link
			dirs = append(dirs, filepath.Dir(path))
		}
	}
	installed, err := filepath.Glob("/usr/lib/postgresql/*/bin")
	if err != nil {
		return "", err
	}
	slices.SortFunc(installed, func(a, b string) int { return major(b) - major(a) })
	for _, dir := range append(dirs, installed...) {
		if usable(dir) == nil {
			return dir, nil
		}
	}
	bin, err := install()
	if err != nil {
		return "", fmt.Errorf("no PostgreSQL %d or newer is here (install it, or set POSTGRES_BIN to the folder of its programs), and: %w", oldest, err)
	}
	return bin, nil
}

// major is the version in a path such as /usr/lib/postgresql/15/bin.
func major(bin string) int {
	n, _ := strconv.Atoi(filepath.Base(filepath.Dir(bin))) // another folder comes last
	return n
}

// usable returns an error unless the folder has the programs of a version that is new enough.
func usable(dir string) error {
	if _, err := os.Stat(filepath.Join(dir, "initdb")); err != nil {
		return err
	}
	out, err := exec.Command(filepath.Join(dir, "postgres"), "--version").Output() // postgres (PostgreSQL) 15.14 (Debian ...)
	if err != nil {
		return err
	}
	fields := strings.Fields(string(out))
	if len(fields) < 3 {
		return fmt.Errorf("%s says %q", dir, out)
	}
	number, _, _ := strings.Cut(fields[2], ".")
	if n, err := strconv.Atoi(number); err != nil || n < oldest {
		return fmt.Errorf("%s has PostgreSQL %s: %d is the oldest that is supported", dir, fields[2], oldest)
	}
	return nil
}
