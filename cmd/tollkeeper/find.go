package main

import (
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"strings"

	"github.com/spf13/cobra"

	"github.com/tollkeeper-authz/tollkeeper/authz/admin"
	"github.com/tollkeeper-authz/tollkeeper/authz/server"
)

// Annotations of commands.
const (
	// readsOnly marks a command, and those in it, that changes nothing on a server. Whatever does not have it is taken to
	// write, and needs a server that the user has named or stands beside.
	readsOnly = "reads-only"
	// judgesEnvironment marks a command that reports unknown variables itself.
	judgesEnvironment = "judges-environment"
)

// reading marks a command that only reads.
func reading(cmd *cobra.Command) *cobra.Command {
	cmd.Annotations = map[string]string{readsOnly: ""}
	return cmd
}

func onlyReads(cmd *cobra.Command) bool {
	for ; cmd != nil; cmd = cmd.Parent() {
		if _, ok := cmd.Annotations[readsOnly]; ok {
			return true
		}
	}
	return false
}

// preferFlags forgets variables that name another server than a flag does, and refuses flags that name none: what is empty
// by mistake, as in --data-dir "$DIR", would mean another server.
func (c *cli) preferFlags(cmd *cobra.Command) error {
	f := cmd.Flags()
	if err := notEmpty(cmd, "data-dir", "admin", "token-file"); err != nil {
		return err
	}
	if f.Changed("data-dir") && !f.Changed("admin") {
		c.address = ""
		if !f.Changed("token-file") {
			c.tokenFile = ""
		}
	}
	return nil
}

// notEmpty refuses flags that were given and are empty: a variable in quotes that is not set would be taken for no flag.
func notEmpty(cmd *cobra.Command, names ...string) error {
	for _, name := range names {
		if f := cmd.Flags().Lookup(name); f.Changed && f.Value.String() == "" {
			return usagef("--%s must not be empty", name)
		}
	}
	return nil
}

// client is one for the server that the user means.
func (c *cli) client(cmd *cobra.Command) (*admin.Client, error) {
	address, tokenFile := c.address, c.tokenFile
	if address == "" {
		dir, there, err := c.runningDir(cmd)
		if err != nil {
			return nil, err
		}
		if address = there; tokenFile == "" {
			tokenFile = filepath.Join(dir, admin.TokenFile)
		}
	}
	if tokenFile == "" {
		dir := c.dataDir
		if dir == "" { // only the server itself gets its token
			dir = firstDir(func(dir string) bool {
				there, err := admin.Running(dir)
				return err == nil && there == withScheme(address)
			})
		}
		if dir == "" {
			return nil, fmt.Errorf("no token is known for %s: name its file with --token-file", address)
		}
		tokenFile = filepath.Join(dir, admin.TokenFile)
	}
	token, err := admin.ReadToken(tokenFile)
	if err != nil {
		return nil, fmt.Errorf("admin token: %w", err)
	}
	return admin.NewClient(withScheme(address), token), nil
}

func withScheme(address string) string {
	if strings.Contains(address, "://") {
		return strings.TrimSuffix(address, "/")
	}
	return "http://" + address
}

// runningDir finds the data directory of the server that is meant, and its address: the one that is named, else one
// here, else, for commands that only read, that of the server that this user started last.
func (c *cli) runningDir(cmd *cobra.Command) (dir, address string, err error) {
	if c.dataDir != "" {
		address, err := admin.Running(c.dataDir)
		if errors.Is(err, admin.ErrNotRunning) {
			err = fmt.Errorf("no server runs on %s: start one with: tollkeeper serve --data-dir %s", c.dataDir, c.dataDir)
		}
		return c.dataDir, address, err
	}
	if dir := firstOf(hereDirs(), runs); dir != "" {
		address, err := admin.Running(dir)
		return dir, address, err
	}
	last := lastDir()
	if address, err := admin.Running(last); last != "" && err == nil && !c.noOther {
		if !onlyReads(cmd) {
			return "", "", fmt.Errorf("no server runs here, and the one that was started last is changed only if it is named: --data-dir %s", last)
		}
		_, _ = fmt.Fprintf(cmd.ErrOrStderr(), "tollkeeper: no server runs here: asking the one that was started last, on %s (%s)\n", last, address)
		return last, address, nil
	}
	return "", "", errors.New("no running server found: start one with tollkeeper serve, or name one with --admin and --token-file")
}

// runs reports whether a server runs on a data directory.
func runs(dir string) bool {
	_, err := admin.Running(dir)
	return err == nil
}

// hereDirs are the data directories that somebody means who names none: the default one, and the folder itself.
func hereDirs() []string { return []string{"data", "."} }

// lastDir is the data directory of the server that this user started last, "" if none is known.
func lastDir() string {
	pointer, err := admin.PointerFile()
	if err != nil {
		return ""
	}
	raw, err := os.ReadFile(pointer)
	if err != nil {
		return ""
	}
	return strings.TrimSpace(string(raw))
}

// firstDir is the first data directory that will do, "" if none does.
func firstDir(good func(dir string) bool) string {
	dirs := hereDirs()
	if last := lastDir(); last != "" {
		dirs = append(dirs, last)
	}
	return firstOf(dirs, good)
}

func firstOf(dirs []string, good func(dir string) bool) string {
	for _, dir := range dirs {
		if good(dir) {
			return dir
		}
	}
	return ""
}

// ledgerDir is the data directory of which the file is checked if none is named.
func (c *cli) ledgerDir(cmd *cobra.Command) string {
	dir := firstDir(func(dir string) bool { return runs(dir) || server.HasLedger(dir) })
	if dir != "" && dir == lastDir() {
		_, _ = fmt.Fprintf(cmd.ErrOrStderr(), "tollkeeper: there is no data directory here: looking at that of the server that was started last, %s\n", dir)
	}
	return dir
}
