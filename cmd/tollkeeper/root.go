package main

import (
	"fmt"
	"os"
	"runtime/debug"
	"slices"
	"strings"
	"time"

	"github.com/agnivade/levenshtein"
	"github.com/spf13/cobra"
	"github.com/spf13/pflag"

	"github.com/tollkeeper-authz/tollkeeper/authz/admin"
	"github.com/tollkeeper-authz/tollkeeper/authz/config"
)

// version is set by releases, with -ldflags.
var version = ""

func buildVersion() string {
	if version != "" {
		return version
	}
	if info, ok := debug.ReadBuildInfo(); ok && info.Main.Version != "" {
		return info.Main.Version
	}
	return "devel"
}

// cli is the state that all commands share.
type cli struct {
	output    string
	address   string
	tokenFile string
	dataDir   string
	noLast    bool // do not fall back to the last server started
}

func newRoot() *cobra.Command {
	c := &cli{}
	root := &cobra.Command{
		Use:   "tollkeeper",
		Short: "External authorizer for Envoy: keys, revocation, quota and Rego in one call",
		Long: `Tollkeeper answers Envoy's external authorization checks: is this key valid, has it
been revoked, is there quota left? Rego policies decide.`,
		Example: `  # Run the server.
  tollkeeper serve

  # Create an account, and a key for it.
  tollkeeper account create acme --plan free
  tollkeeper key create --account acme

  # Explain why a request is allowed or denied.
  tollkeeper explain --path /v1/reports/7 --account acme`,
		SilenceUsage: true, SilenceErrors: true,
		CompletionOptions: cobra.CompletionOptions{HiddenDefaultCmd: true},
		PersistentPreRunE: func(cmd *cobra.Command, _ []string) error {
			if c.output != "table" && c.output != "json" {
				return usagef("--output %q: want table or json", c.output)
			}
			if err := c.preferFlags(cmd); err != nil {
				return err
			}
			if _, ok := cmd.Annotations[judgesEnvironment]; ok {
				return nil
			}
			return config.CheckEnvironment()
		},
	}
	f := root.PersistentFlags()
	f.StringVarP(&c.output, "output", "o", "table", "form of the answer, table or json")
	f.StringVar(&c.address, "admin", os.Getenv("TOLLKEEPER_ADMIN"), "address of the server's admin port, such as http://127.0.0.1:9002")
	f.StringVar(&c.tokenFile, "token-file", os.Getenv("TOLLKEEPER_TOKEN_FILE"), "file with the admin token")
	f.StringVar(&c.dataDir, "data-dir", os.Getenv("TOLLKEEPER_DATA_DIR"), "data directory of the server, which has its token and address; ./data if not given")
	root.SetFlagErrorFunc(flagError)
	root.SetUsageTemplate(strings.ReplaceAll(root.UsageTemplate(), ".FlagUsages", fmt.Sprintf(".FlagUsagesWrapped %d", helpWidth)))
	root.AddCommand(
		c.serveCmd(), c.accountCmd(), c.keyCmd(), c.tokenCmd(), c.quotaCmd(), c.storeCmd(), readOnly(c.policyCmd()), readOnly(c.explainCmd()),
		readOnly(c.doctorCmd()), readOnly(c.statusCmd()), readOnly(c.backupCmd()), c.restoreCmd(), c.versionCmd(),
	)
	return group(root)
}

// group makes a command that has only subcommands refuse unknown words and suggest a similar subcommand.
func group(cmd *cobra.Command) *cobra.Command {
	cmd.RunE = func(cmd *cobra.Command, args []string) error {
		if len(args) == 0 {
			return cmd.Help()
		}
		cmd.SuggestionsMinimumDistance = 2
		if near := cmd.SuggestionsFor(args[0]); len(near) > 0 {
			return usagef("there is no command %q: did you mean %s %s?", args[0], cmd.CommandPath(), near[0])
		}
		return usagef("there is no command %q: see %s --help", args[0], cmd.CommandPath())
	}
	cmd.Args = cobra.ArbitraryArgs
	return cmd
}

// flagError suggests a similar flag.
func flagError(cmd *cobra.Command, err error) error {
	_, name, ok := strings.Cut(err.Error(), "unknown flag: --")
	if !ok {
		return usagef("%v: see %s --help", err, cmd.CommandPath())
	}
	best, distance := "", 3
	cmd.Flags().VisitAll(func(f *pflag.Flag) {
		d := levenshtein.ComputeDistance(name, f.Name)
		if len(name) > 2 && strings.HasPrefix(f.Name, name+"-") {
			d = min(d, 2) // --expires for --expires-at
		}
		if d < distance {
			best, distance = f.Name, d
		}
	})
	if best != "" {
		return usagef("there is no flag --%s: did you mean --%s?", name, best)
	}
	return usagef("there is no flag --%s: see %s --help", name, cmd.CommandPath())
}

// args requires exactly the named arguments, and none of them empty.
func args(names ...string) cobra.PositionalArgs {
	return func(cmd *cobra.Command, given []string) error {
		if len(given) < len(names) {
			return usagef("give %s: see %s --help", names[len(given)], cmd.CommandPath())
		}
		if len(given) > len(names) {
			return unexpected(cmd, given[len(names)])
		}
		if i := slices.Index(given, ""); i >= 0 {
			return usagef("an argument is empty: give %s", names[i])
		}
		return nil
	}
}

func unexpected(cmd *cobra.Command, arg string) error {
	return usagef("there is an argument too many, %q: see %s --help", arg, cmd.CommandPath())
}

func (c *cli) versionCmd() *cobra.Command {
	return &cobra.Command{
		Use: "version", Short: "Print the version", Example: "  tollkeeper version", Args: args(),
		RunE: func(cmd *cobra.Command, _ []string) error {
			return c.show(cmd, map[string]string{"version": buildVersion()}, func(t *table) { t.line("tollkeeper " + buildVersion()) })
		},
	}
}

func (c *cli) statusCmd() *cobra.Command {
	var wait string
	cmd := &cobra.Command{
		Use: "status", Short: "Show the state of the running server", Args: args(),
		Example: "  tollkeeper status\n  tollkeeper status --wait 10s",
		RunE: func(cmd *cobra.Command, _ []string) error {
			var timeout time.Duration
			if cmd.Flags().Changed("wait") {
				var err error
				if timeout, err = parseDuration("wait", wait); err != nil {
					return err
				}
				c.noLast = true
			}
			var s admin.Status
			if err := c.await(cmd, timeout, func() error { return c.do(cmd, "GET", admin.Path("status"), nil, &s) }); err != nil {
				return err
			}
			return c.show(cmd, s, func(t *table) { printStatus(t, &s) })
		},
	}
	cmd.Flags().StringVar(&wait, "wait", "", "how long to wait for a starting server, such as 10s")
	return cmd
}

func printStatus(t *table, s *admin.Status) {
	t.field("address", s.Address)
	t.field("data directory", s.DataDir)
	t.field("version", s.Version)
	t.field("node", s.Node)
	t.field("policy", s.Policy)
	t.field("evaluator", s.Evaluator)
	for fault := range strings.Lines(s.PolicyFault) {
		t.field("policy fault", strings.TrimSuffix(fault, "\n"))
	}
	t.field("clock fault", s.ClockFault)
	t.field("pruning paused", s.PruningPaused)
	if !s.PolicyKept.IsZero() {
		t.field("policy kept", "the configured policies cannot be used: the server runs with those kept at "+when(s.PolicyKept))
	}
	for _, plan := range s.MissingPlans {
		t.field("missing plan", plan)
	}
	t.field("plans", strings.Join(s.Plans, ", "))
	t.field("routes", fmt.Sprint(s.Routes))
	t.field("revocations", fmt.Sprint(s.Revocations))
}

// await calls try until it succeeds or the time is over.
func (c *cli) await(cmd *cobra.Command, timeout time.Duration, try func() error) error {
	for deadline := time.Now().Add(timeout); ; {
		err := try()
		if err == nil || time.Now().After(deadline) {
			return err
		}
		select {
		case <-cmd.Context().Done():
			return err
		case <-time.After(50 * time.Millisecond):
		}
	}
}

// do calls the admin API.
func (c *cli) do(cmd *cobra.Command, method, path string, in, out any) error {
	client, err := c.client(cmd)
	if err != nil {
		return err
	}
	return client.Do(cmd.Context(), method, path, in, out)
}
