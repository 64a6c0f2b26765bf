package main

import (
	"context"
	"errors"
	"io/fs"
	"os"
	"path/filepath"
	"time"

	"github.com/spf13/cobra"

	"github.com/tollkeeper-authz/tollkeeper/authz/admin"
	"github.com/tollkeeper-authz/tollkeeper/authz/config"
	"github.com/tollkeeper-authz/tollkeeper/authz/doctor"
	"github.com/tollkeeper-authz/tollkeeper/authz/doctor/lint"
	"github.com/tollkeeper-authz/tollkeeper/authz/policy"
	"github.com/tollkeeper-authz/tollkeeper/authz/policy/bundle"
	"github.com/tollkeeper-authz/tollkeeper/authz/rulebook"
	"github.com/tollkeeper-authz/tollkeeper/authz/server"
)

func (c *cli) doctorConfigCmd() *cobra.Command {
	var o judgeOptions
	var file string
	cmd := &cobra.Command{
		Annotations: map[string]string{judgesEnvironment: ""},
		Use:         "config [FILE...]", Short: "Check this machine's configuration, policies, data directory and certificates",
		Long: `Check the configuration that tollkeeper serve would use, including the environment, and
the things on this machine that it names: policies and their tests, the data directory,
certificates and other files. The server's own code tests whether it would start. The
check changes nothing. If files of Envoy, Istio or Envoy Gateway are given, they are
checked against the configuration.

` + exitCodes,
		Example: "  tollkeeper doctor config -c tollkeeper.yaml\n  tollkeeper doctor config -c tollkeeper.yaml envoy.yaml",
		RunE: func(cmd *cobra.Command, paths []string) error {
			own, err := c.ownFiles(cmd, file)
			if err != nil {
				return usagef("%v", err)
			}
			return c.judge(cmd, &o, lint.AnySubject, paths, own...)
		},
	}
	o.flags(cmd)
	cmd.Flags().StringVarP(&file, "config", "c", os.Getenv("TOLLKEEPER_CONFIG"), "configuration file")
	return cmd
}

// ownFiles loads the configuration as serve does, and checks the files that it names. It returns the configuration and the table of
// routes. The error is about reading the configuration.
func (c *cli) ownFiles(cmd *cobra.Command, path string) ([]*lint.File, error) {
	var raw []byte
	if path != "" {
		var err error
		if raw, err = readFile(path); err != nil {
			return nil, err
		}
	}
	cfg, err := config.Load(path)
	if err != nil {
		return []*lint.File{lint.OwnFile(path, raw, cfg, err, nil)}, nil
	}
	if cmd.Flags().Changed("data-dir") {
		cfg.DataDir = c.dataDir
	}
	state := &lint.State{
		Data: dataState(cmd.Context(), cfg),
		TLS:  lint.TLSFiles{Cert: cfg.TLS.CertFile, Key: cfg.TLS.KeyFile, ClientCA: cfg.TLS.ClientCAFile},
	}
	seen := server.Check(cmd.Context(), cfg)
	for i := range seen.Faults {
		switch f := &seen.Faults[i]; f.Field {
		case "policy":
			state.PolicyFaults = faultLines(f.Err)
		case "data_dir":
			state.Data.Fault = f.Err.Error()
		default:
			state.Faults = append(state.Faults, startFault(f))
		}
	}
	policyState(cmd.Context(), cfg.Policy, seen.Policy, state)
	c.planState(cmd, cfg, state)
	files := []*lint.File{lint.OwnFile(path, raw, cfg, nil, state)}
	if len(state.PolicyFaults) > 0 {
		return files, nil // the table may be at fault
	}
	return append(files, tableFiles(cfg.Policy)...), nil
}

func startFault(f *server.StartFault) lint.StartFault {
	var file *fs.PathError
	return lint.StartFault{Field: f.Field, Text: f.Err.Error(), File: errors.As(f.Err, &file)}
}

// usable implements lint.Options.Usable.
func usable(cfg *config.Config) (out []lint.StartFault) {
	faults := server.CheckFields(cfg)
	for i := range faults {
		out = append(out, startFault(&faults[i]))
	}
	return out
}

// policyState checks and tests policies that the server accepts.
func policyState(ctx context.Context, cfg config.Policy, p *policy.Policy, s *lint.State) {
	if p == nil {
		return
	}
	s.VerdictCache, s.Evaluator = p.Caching(), p.Evaluator().String()
	var load *bundle.LoadError
	checked, err := rulebook.Check(ctx, cfg, nil)
	for _, w := range checked.Warnings {
		s.PolicyNotes = append(s.PolicyNotes, w.String())
	}
	if errors.As(err, &load) {
		s.PolicyNotes = faultLines(err) // the check is stricter than the server
	} else if err != nil {
		s.PolicyFaults = faultLines(err)
	}
	if len(cfg.Paths) == 0 {
		return // the shipped policies are tested when they are built
	}
	results, err := rulebook.Test(ctx, cfg)
	if err != nil {
		s.FailedTests = faultLines(err)
	}
	for i := range results {
		if !results[i].Passed() && !results[i].Skipped {
			s.FailedTests = append(s.FailedTests, results[i].Name)
		}
	}
}

// planState finds plans in use that the policies do not define. It reads the data file, or asks the server that has it open.
func (c *cli) planState(cmd *cobra.Command, cfg config.Config, s *lint.State) {
	if at, err := rulebook.LastKept(cfg.DataDir, cfg.Policy); err == nil && !at.IsZero() {
		s.PolicyKept = at.Format(time.RFC3339)
	}
	if cfg.Store.Kind != config.StoreBolt || !server.HasLedger(cfg.DataDir) {
		return
	}
	used, err := server.PlansOf(cmd.Context(), cfg.DataDir)
	if errors.Is(err, server.ErrRunning) {
		used = new(admin.Plans)
		err = (&cli{dataDir: cfg.DataDir}).do(cmd, "GET", admin.Path("plans"), nil, used)
	}
	if err != nil {
		return // dataState reports faults of the data directory
	}
	s.MissingPlans, _ = rulebook.Lacking(cmd.Context(), cfg.Policy, used) // policyState reports faults of the policies
}

func faultLines(err error) []string {
	var load *bundle.LoadError
	if !errors.As(err, &load) {
		return []string{err.Error()}
	}
	out := make([]string, len(load.Faults))
	for i := range load.Faults {
		out[i] = load.Faults[i].String()
	}
	return out
}

// dataState inspects a data directory and does not change it. server.Check finds out whether the directory can be used.
func dataState(ctx context.Context, cfg config.Config) lint.DataDir {
	dir := cfg.DataDir
	var d lint.DataDir
	info, err := os.Stat(dir)
	for errors.Is(err, fs.ErrNotExist) && dir != filepath.Dir(dir) { // the server would create it
		dir = filepath.Dir(dir)
		info, err = os.Stat(dir)
	}
	if err != nil || !info.IsDir() {
		return d
	}
	if d.Free = freeBytes(dir); dir != cfg.DataDir {
		return d
	}
	for _, name := range []string{admin.TokenFile, "tollkeeper.db"} {
		if info, err := os.Stat(filepath.Join(dir, name)); err == nil && info.Mode().Perm()&0o007 != 0 {
			d.Shared = true
		}
	}
	if cfg.Store.Kind == config.StoreBolt && server.HasLedger(dir) {
		ledgerState(ctx, dir, &d)
	}
	return d
}

func ledgerState(ctx context.Context, dir string, d *lint.DataDir) {
	report, err := server.CheckLedger(ctx, dir)
	switch {
	case errors.Is(err, server.ErrRunning):
		d.Running = true
	case err != nil:
		d.Damage = err.Error()
	}
	for _, f := range report.Findings {
		if f.State == doctor.StateWrong {
			d.Damage = f.Check + ": " + f.Wrong
			return
		}
	}
}
