package main

import (
	"context"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"net"
	"net/http"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"time"

	"github.com/spf13/cobra"

	"github.com/tollkeeper-authz/tollkeeper/authz/doctor/lint"
)

const exitCodes = `The exit code is 0 if no finding is above a note, 1 for warnings, and 2 for errors and
unreadable files.`

// judgeOptions are the flags of commands that check files.
type judgeOptions struct {
	lint.Options
	format string
}

func (o *judgeOptions) flags(cmd *cobra.Command) {
	f := cmd.Flags()
	f.StringVar(&o.format, "format", "text", "form of the report: text, json or sarif")
	f.StringSliceVar(&o.Ignore, "ignore", nil, "rules to skip, such as TK111,TK124")
	f.StringVar(&o.Cluster, "cluster", "", "cluster (Envoy) or provider (Istio) of Tollkeeper, if there are other authorizers")
	f.StringVar(&o.EnvoyVersion, "envoy-version", "", "version of the Envoy that will read the configuration, such as 1.40.0")
	f.StringSliceVar(&o.Unchecked, "unchecked", nil, "routes (path, prefix or name), listeners or policies that are open on purpose")
}

func (c *cli) doctorIstioCmd() *cobra.Command {
	return c.doctorFilesCmd(lint.IstioSubject, "Istio", "mesh configuration, AuthorizationPolicy,\nDestinationRule, EnvoyFilter, Service",
		"authorizationpolicies,destinationrules")
}

func (c *cli) doctorGatewayCmd() *cobra.Command {
	return c.doctorFilesCmd(lint.EGSubject, "Envoy Gateway", "SecurityPolicy, traffic policies,\nEnvoyPatchPolicy, or the output of egctl x translate",
		"securitypolicies,envoypatchpolicies")
}

func (c *cli) doctorFilesCmd(about lint.Subject, name, kinds, resources string) *cobra.Command {
	var o judgeOptions
	cmd := &cobra.Command{
		Use: string(about) + " FILE...", Short: "Check configurations of " + name,
		Long: "Check configurations of " + name + ": " + kinds + ".\n" +
			"In a directory, all YAML and JSON files are read; - is standard input.\n\n" + exitCodes,
		Example: "  tollkeeper doctor " + string(about) + " config.yaml\n  kubectl get -A -o yaml " + resources + " | tollkeeper doctor " + string(about) + " -",
		RunE: func(cmd *cobra.Command, paths []string) error {
			if len(paths) == 0 {
				return usagef("give files, directories, or - for standard input: see %s --help", cmd.CommandPath())
			}
			return c.judge(cmd, &o, about, paths)
		},
	}
	o.flags(cmd)
	return cmd
}

func (c *cli) doctorEnvoyCmd() *cobra.Command {
	var o judgeOptions
	var adminAddress string
	cmd := &cobra.Command{
		Use: "envoy FILE...", Short: "Check a bootstrap or configuration dump of Envoy, or a running Envoy",
		Long: `Check a bootstrap in YAML or JSON, or the /config_dump of Envoy's admin port. With --admin,
the dump and the version are fetched from a running Envoy.

` + exitCodes,
		Example: "  tollkeeper doctor envoy envoy.yaml\n  tollkeeper doctor envoy --admin http://127.0.0.1:9901",
		RunE: func(cmd *cobra.Command, paths []string) error {
			if len(paths) == 0 && adminAddress == "" {
				return usagef("give files, - for standard input, or --admin http://127.0.0.1:9901")
			}
			var more []*lint.File
			if adminAddress != "" {
				var err error
				if more, err = askEnvoy(cmd.Context(), adminAddress); err != nil {
					return usagef("%v", err)
				}
			}
			return c.judge(cmd, &o, lint.EnvoySubject, paths, more...)
		},
	}
	o.flags(cmd)
	// It hides the flag of the same name for Tollkeeper's admin port, which this command does not use.
	cmd.Flags().StringVar(&adminAddress, "admin", "", "address of Envoy's admin port, such as http://127.0.0.1:9901 or unix:/run/envoy/admin.sock")
	return cmd
}

// judge reads files, applies the rules, prints the report, and sets the exit code.
func (c *cli) judge(cmd *cobra.Command, o *judgeOptions, about lint.Subject, paths []string, more ...*lint.File) error {
	if !cmd.Flags().Changed("format") && c.output == "json" {
		o.format = "json"
	}
	if !slices.Contains([]string{"text", "json", "sarif"}, o.format) {
		return usagef("--format %q: want text, json or sarif", o.format)
	}
	files, err := readInTime(cmd.Context(), cmd.InOrStdin(), about, paths)
	if err != nil {
		return usagef("%v", err)
	}
	files = slices.DeleteFunc(files, func(f *lint.File) bool { // a file of this machine's policies, given a second time
		return slices.ContainsFunc(more, func(m *lint.File) bool { return filepath.Clean(m.Name) == filepath.Clean(f.Name) })
	})
	files = append(files, more...)
	if !slices.ContainsFunc(files, (*lint.File).Known) {
		return usagef("%s: there is nothing to check: want a configuration of Envoy, Istio, Envoy Gateway or Tollkeeper, or its routes", strings.Join(paths, ", "))
	}
	o.Usable, o.Routable, o.Operations = usable, routable, operations
	report, err := lint.Run(files, o.Options)
	if err != nil {
		return usagef("%v: see tollkeeper doctor rules", err)
	}
	if err := c.showReport(cmd, o.format, &report); err != nil {
		return err
	}
	switch report.Worst() {
	case lint.Error:
		return &exitError{2}
	case lint.Warning:
		return &exitError{1}
	}
	return nil
}

func (c *cli) showReport(cmd *cobra.Command, format string, r *lint.Report) error {
	switch format {
	case "json":
		as := cli{output: "json"}
		return as.show(cmd, r, nil)
	case "sarif":
		return r.WriteSARIF(cmd.OutOrStdout(), buildVersion())
	}
	return r.WriteText(cmd.OutOrStdout())
}

// readInTime is readFiles, but also returns when the context ends, because reading a pipe may block forever.
func readInTime(ctx context.Context, stdin io.Reader, about lint.Subject, paths []string) ([]*lint.File, error) {
	type result struct {
		files []*lint.File
		err   error
	}
	done := make(chan result, 1)
	go func() {
		files, err := readFiles(stdin, about, paths)
		done <- result{files, err}
	}()
	select {
	case r := <-done:
		return r.files, r.err
	case <-ctx.Done():
		return nil, errors.New("interrupted while reading files")
	}
}

// readFiles reads files, directories and standard input.
func readFiles(stdin io.Reader, about lint.Subject, paths []string) ([]*lint.File, error) {
	var out []*lint.File
	for _, path := range paths {
		if path == "-" {
			raw, err := readAll(stdin)
			if err != nil {
				return nil, fmt.Errorf("standard input: %w", err)
			}
			out = append(out, lint.Parse("(standard input)", raw, about))
			continue
		}
		names, err := filesIn(path)
		if err != nil {
			return nil, err
		}
		for _, name := range names {
			raw, err := readFile(name)
			if err != nil {
				return nil, err
			}
			out = append(out, lint.Parse(name, raw, about))
		}
	}
	return out, nil
}

func readFile(name string) ([]byte, error) {
	f, err := os.Open(name)
	if err != nil {
		return nil, err
	}
	defer func() { _ = f.Close() }()
	raw, err := readAll(f)
	if err != nil {
		return nil, fmt.Errorf("%s: %w", name, err)
	}
	return raw, nil
}

func readAll(r io.Reader) ([]byte, error) {
	raw, err := io.ReadAll(io.LimitReader(r, lint.MaxBytes+1))
	if err == nil && len(raw) > lint.MaxBytes {
		err = fmt.Errorf("it is larger than %d MiB", lint.MaxBytes>>20)
	}
	return raw, err
}

// filesIn returns a file itself, or all YAML and JSON files in a directory. In a directory it skips names that begin with a dot,
// and files that are not regular, because reading a pipe may block forever.
func filesIn(path string) ([]string, error) {
	info, err := os.Stat(path)
	if err != nil || !info.IsDir() {
		return []string{path}, err
	}
	var out []string
	err = filepath.WalkDir(path, func(name string, d fs.DirEntry, err error) error {
		switch {
		case err != nil:
			return err
		case name != path && strings.HasPrefix(d.Name(), "."):
			if d.IsDir() {
				return fs.SkipDir
			}
			return nil
		case d.IsDir() || !slices.Contains([]string{".yaml", ".yml", ".json"}, filepath.Ext(name)):
			return nil
		}
		info, err := os.Stat(name) // follows links, because a mounted ConfigMap has links
		if err == nil && info.Mode().IsRegular() {
			out = append(out, name)
		}
		return err
	})
	if err == nil && len(out) == 0 {
		err = fmt.Errorf("%s: there are no YAML or JSON files in this directory", path)
	}
	return out, err
}

// askEnvoy fetches the version and the configuration of a running Envoy.
func askEnvoy(ctx context.Context, address string) ([]*lint.File, error) {
	client := &http.Client{Timeout: 30 * time.Second}
	base := strings.TrimSuffix(address, "/")
	if socket, ok := strings.CutPrefix(address, "unix:"); ok {
		client.Transport = &http.Transport{DialContext: func(ctx context.Context, _, _ string) (net.Conn, error) {
			return (&net.Dialer{}).DialContext(ctx, "unix", socket)
		}}
		base = "http://envoy"
	} else if !strings.Contains(base, "://") {
		base = "http://" + base
	}
	var out []*lint.File
	for _, path := range []string{"/server_info", "/config_dump"} {
		raw, err := get(ctx, client, base+path)
		if err != nil {
			return nil, err
		}
		out = append(out, lint.Parse(strings.TrimSuffix(address, "/")+path, raw, lint.EnvoySubject))
	}
	return out, nil
}

func get(ctx context.Context, client *http.Client, url string) ([]byte, error) {
	req, err := http.NewRequestWithContext(ctx, http.MethodGet, url, nil)
	if err != nil {
		return nil, err
	}
	resp, err := client.Do(req)
	if err != nil {
		if cause := errors.Unwrap(err); cause != nil {
			err = cause
		}
		return nil, fmt.Errorf("no Envoy answers at %s: %w", url, err)
	}
	defer func() { _ = resp.Body.Close() }()
	switch resp.StatusCode {
	case http.StatusOK:
		return readAll(resp.Body)
	case http.StatusForbidden:
		return nil, fmt.Errorf("%s: Envoy answered 403: add /config_dump and /server_info to admin.allow_paths", url)
	}
	return nil, fmt.Errorf("%s answered %s: want an admin port of Envoy", url, resp.Status)
}

func (c *cli) doctorRulesCmd() *cobra.Command {
	return &cobra.Command{
		Use: "rules [ID]", Short: "Print the rules for configurations, or one with its remedy",
		Example: "  tollkeeper doctor rules\n  tollkeeper doctor rules TK104",
		RunE: func(cmd *cobra.Command, ids []string) error {
			if len(ids) > 1 {
				return unexpected(cmd, ids[1])
			}
			if len(ids) == 0 {
				return c.show(cmd, lint.Rules(), func(t *table) {
					for _, r := range lint.Rules() {
						t.row(r.ID, string(r.Severity), r.Title)
					}
				})
			}
			r, ok := lint.RuleByID(strings.ToUpper(ids[0]))
			if !ok {
				return usagef("there is no rule %q: see %s", ids[0], cmd.CommandPath())
			}
			return c.show(cmd, r, func(t *table) {
				t.field("rule", r.ID)
				t.field("severity", string(r.Severity))
				t.field("wrong", r.Title)
				t.field("why", r.Why)
				t.field("remedy", r.Remedy)
			})
		},
	}
}
