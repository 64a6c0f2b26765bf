package main

import (
	"bytes"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"strings"

	"github.com/spf13/cobra"

	"github.com/tollkeeper-authz/tollkeeper/policies"
)

func (c *cli) policyInitCmd() *cobra.Command {
	var upgrade bool
	cmd := &cobra.Command{
		Use: "init DIR", Short: "Write the shipped policies to a directory, to start your own",
		Long: `Write the shipped policies to a directory that is empty or does not exist.

With --upgrade, replace the shipped rules in a directory that has those of an older version.
Its plans, routes and reasons, and your own files, stay as they are. Files that differed are
kept in DIR/replaced, with .old at the end of their names.`,
		Example: "  tollkeeper policy init policies\n  tollkeeper policy init --upgrade policies",
		Args:    args("the directory to create"),
		RunE: func(cmd *cobra.Command, a []string) error {
			if upgrade {
				return c.upgradePolicies(cmd, a[0])
			}
			n, err := writePolicies(a[0])
			if err != nil {
				return err
			}
			return c.show(cmd, map[string]any{"folder": a[0], "files": n}, func(t *table) {
				t.sentence("%d files written. Use them with:\n\n  TOLLKEEPER_POLICY_PATHS=%s tollkeeper serve", n, a[0])
			})
		},
	}
	cmd.Flags().BoolVar(&upgrade, "upgrade", false, "replace the shipped rules of an older version in the directory")
	return cmd
}

// writePolicies writes the shipped files to a directory that is empty or absent.
func writePolicies(dir string) (int, error) {
	if entries, err := os.ReadDir(dir); err == nil && len(entries) > 0 {
		return 0, fmt.Errorf("%s is not empty: give another directory, or --upgrade", dir)
	}
	n := 0
	err := eachShipped(func(name string, content []byte) error {
		n++
		return writeFile(filepath.Join(dir, name), content)
	})
	return n, err
}

// obsolete are files that older versions had and that would contradict those of today.
var obsolete = []string{"hook.rego", "hook_test.rego"}

// upgradePolicies replaces the shipped files in a directory, except data.
func (c *cli) upgradePolicies(cmd *cobra.Command, dir string) error {
	if _, err := os.Stat(filepath.Join(dir, "authz.rego")); err != nil {
		return fmt.Errorf("%s has no shipped policies: want a directory of tollkeeper policy init", dir)
	}
	var replaced []string
	keep := func(name string) error {
		replaced = append(replaced, name)
		old := filepath.Join(dir, "replaced", filepath.FromSlash(name)+".old")
		if err := os.MkdirAll(filepath.Dir(old), 0o755); err != nil {
			return err
		}
		return os.Rename(filepath.Join(dir, name), old)
	}
	err := eachShipped(func(name string, content []byte) error {
		if strings.HasSuffix(name, ".yaml") {
			return nil
		}
		file := filepath.Join(dir, name)
		before, err := os.ReadFile(file)
		switch {
		case err == nil && bytes.Equal(before, content):
			return nil
		case err == nil:
			err = keep(name)
		case errors.Is(err, fs.ErrNotExist):
			err = nil
		}
		if err != nil {
			return err
		}
		return writeFile(file, content)
	})
	for _, name := range obsolete {
		if _, missing := os.Stat(filepath.Join(dir, name)); missing == nil && err == nil {
			err = keep(name)
		}
	}
	if err != nil {
		return err
	}
	return c.show(cmd, map[string]any{"folder": dir, "replaced": replaced}, func(t *table) {
		t.sentence("%d files replaced. Check the policies with:\n\n  tollkeeper policy check %s", len(replaced), dir)
	})
}

// eachShipped calls write for every shipped file, except the tests of the shipped plans and routes, which users change.
func eachShipped(write func(name string, content []byte) error) error {
	return fs.WalkDir(policies.Files, ".", func(name string, d fs.DirEntry, err error) error {
		if err != nil || d.IsDir() || name == policies.ShippedTest {
			return err
		}
		content, err := policies.Files.ReadFile(name)
		if err != nil {
			return err
		}
		return write(name, content)
	})
}

func writeFile(name string, content []byte) error {
	if err := os.MkdirAll(filepath.Dir(name), 0o755); err != nil {
		return err
	}
	return os.WriteFile(name, content, 0o644)
}
