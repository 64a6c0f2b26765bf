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
	// readsOnly marks a command, with its subcommands, that changes nothing on a server. Other commands work only with a server
	// that the user names, or whose data directory is here.
	readsOnly = "reads-only"
	// judgesEnvironment marks a command that reports unknown environment variables itself.
	judgesEnvironment = "judges-environment"
)

// readOnly marks a command that only reads.
func readOnly(cmd *cobra.Command) *cobra.Command {
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

// preferFlags ignores environment variables that name another server than a flag does. It refuses empty flags: if a flag is
// empty by mistake, as in --data-dir "$DIR", the command would use another server.
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

// notEmpty refuses empty flags. Otherwise an unset variable in quotes would count as no flag.
func notEmpty(cmd *cobra.Command, names ...string) error {
	for _, name := range names {
		if f := cmd.Flags().Lookup(name); f.Changed && f.Value.String() == "" {
			return usagef("--%s must not be empty", name)
		}
	}
	return nil
}

// client returns a client for the server of the command.
func (c *cli) client(cmd *cobra.Command) (*admin.Client, error) {
	address, tokenFile := c.address, c.tokenFile
	if address == "" {
		dir, running, err := c.runningDir(cmd)
		if err != nil {
			return nil, err
		}
		if address = running; tokenFile == "" {
			tokenFile = filepath.Join(dir, admin.TokenFile)
		}
	}
	if tokenFile == "" {
		dir := c.dataDir
		if dir == "" { // a token is sent only to its own server
			dir = firstDir(func(dir string) bool {
				running, err := admin.Running(dir)
				return err == nil && running == withScheme(address)
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

// runningDir finds the data directory and the address of the server of the command: the server that the user names, else a
// server that runs here, else, for commands that only read, the last server that the user started.
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
	if address, err := admin.Running(last); last != "" && err == nil && !c.noLast {
		if !onlyReads(cmd) {
			return "", "", fmt.Errorf("no server runs here: to change the last one started, give --data-dir %s", last)
		}
		note(cmd, "no server runs here: asking the last one started, on %s (%s)", last, address)
		return last, address, nil
	}
	return "", "", errors.New("no running server found: give --data-dir, or --admin and --token-file, or start one with: tollkeeper serve")
}

// runs reports whether a server runs on a data directory.
func runs(dir string) bool {
	_, err := admin.Running(dir)
	return err == nil
}

// hereDirs returns the data directories to try if the user names none: the default one, and the working directory.
func hereDirs() []string { return []string{"data", "."} }

// lastDir returns the data directory of the last server that this user started, "" if unknown.
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

// firstDir returns the first good data directory: it tries the ones here, then the last one. It returns "" if none is good.
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

// ledgerDir returns the data directory to read if the user names none, "" if there is none.
func (c *cli) ledgerDir(cmd *cobra.Command) string {
	dir := firstDir(func(dir string) bool { return runs(dir) || server.HasLedger(dir) })
	if dir != "" && dir == lastDir() {
		note(cmd, "there is no data directory here: reading the one of the last server started, %s", dir)
	}
	return dir
}
