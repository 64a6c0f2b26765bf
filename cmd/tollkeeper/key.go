package main

import (
	"crypto/sha256"
	"encoding/hex"
	"fmt"
	"net/url"
	"regexp"
	"slices"
	"strings"
	"time"

	"github.com/spf13/cobra"
	"github.com/spf13/pflag"

	"github.com/tollkeeper-authz/tollkeeper/authz/admin"
)

func (c *cli) keyCmd() *cobra.Command {
	cmd := &cobra.Command{Use: "key", Short: "API keys"}
	yes, no := true, false
	cmd.AddCommand(
		c.keyCreateCmd(), c.importCmd(), reading(c.keyListCmd()), reading(c.keyShowCmd()), c.keyUpdateCmd(), c.keyRotateCmd(),
		c.keySwitchCmd("disable", "Switch a key off; it can be switched on again", &yes),
		c.keySwitchCmd("enable", "Switch a key on again", &no),
		c.keyRevokeCmd(),
	)
	return group(cmd)
}

const keyArg = "the id of a key, or the key itself"

func (c *cli) keyCreateCmd() *cobra.Command {
	var in admin.KeyCreate
	var notBefore, expiresAt, expiresIn string
	var metaPairs []string
	var quiet bool
	cmd := &cobra.Command{
		Use: "create", Short: "Make a key; it is shown once", Args: args(),
		RunE: func(cmd *cobra.Command, _ []string) (err error) {
			if in.Account == "" {
				return usagef("give the account that the key is for: --account acme")
			}
			if err = notEmpty(cmd, "env", "not-before", "plan"); err != nil {
				return err
			}
			if in.Meta, err = pairs("meta", metaPairs); err != nil {
				return err
			}
			if notBefore != "" {
				if in.NotBefore, err = parseTime("not-before", notBefore, startOfDay); err != nil {
					return err
				}
			}
			if in.ExpiresAt, err = expiry(expiresAt, expiresIn); err != nil {
				return err
			}
			if f := cmd.Flags(); in.ExpiresAt.IsZero() && (f.Changed("expires-at") || f.Changed("expires-in")) {
				return usagef("--expires-at and --expires-in must not be empty: leave them out for a key that never expires")
			}
			var k admin.Key
			if err := c.do(cmd, "POST", admin.Path("keys"), in, &k); err != nil {
				return err
			}
			return c.show(cmd, k, func(t *table) { newKey(t, k, quiet) })
		},
	}
	f := cmd.Flags()
	f.StringVar(&in.Account, "account", "", "account that the key belongs to")
	f.StringVar(&in.Name, "name", "", "name for people")
	f.StringVar(&in.Plan, "plan", "", "plan, if not the account's")
	f.StringVar(&in.Environment, "env", "", "environment, live unless given")
	f.StringSliceVar(&in.Scopes, "scopes", nil, "what the key may do: a,b,c")
	f.StringVar(&notBefore, "not-before", "", "when the key becomes valid: a date, from its start, or a time")
	f.StringVar(&expiresAt, "expires-at", "", "when the key expires: a date, at its end, or a time")
	f.StringVar(&expiresIn, "expires-in", "", "how long the key is good: 30d, 12h")
	f.StringArrayVar(&metaPairs, "meta", nil, "name=value that policies can read (again for more)")
	f.BoolVar(&in.Force, "force", false, "also if the key has expired already")
	quietFlag(f, &quiet)
	return cmd
}

// newKey prints a key that was just made, its text first, or nothing else.
func newKey(t *table, k admin.Key, quiet bool) {
	if quiet {
		t.line(k.Key)
		return
	}
	t.line("This is the key. It is shown this once:\n\n  " + k.Key + "\n")
	printKey(t, k)
}

func quietFlag(f *pflag.FlagSet, quiet *bool) {
	f.BoolVarP(quiet, "quiet", "q", false, "print the key and nothing else, for KEY=$(...)")
}

func printKey(t *table, k admin.Key) {
	t.field("id", k.ID)
	t.field("name", k.Name)
	t.field("account", k.Account)
	t.field("status", statusText(&k))
	t.field("plan", k.Plan)
	t.field("environment", k.Environment)
	t.field("scopes", strings.Join(k.Scopes, ", "))
	t.field("not before", when(k.NotBefore))
	t.field("expires", when(k.ExpiresAt))
	t.field("successor", k.Successor)
	t.field("overlap ends", when(k.OverlapEnds))
	if k.Lineage != k.ID {
		t.field("rotated from", k.Lineage)
	}
	t.field("meta", meta(k.Meta))
	t.field("created", when(k.CreatedAt))
}

// keyStatuses are those that keys are listed by.
var keyStatuses = []string{"active", "not_yet_valid", "expired", "disabled", "rotated", "revoked"}

func (c *cli) keyListCmd() *cobra.Command {
	var account, status, expiring string
	var limit int
	cmd := &cobra.Command{
		Use: "list", Short: "List keys", Args: args(),
		RunE: func(cmd *cobra.Command, _ []string) error {
			query := url.Values{}
			if cmd.Flags().Changed("account") {
				if account == "" {
					return usagef("--account: give the id of an account")
				}
				query.Set("account", account)
			}
			if cmd.Flags().Changed("status") {
				if status = strings.ReplaceAll(status, "-", "_"); !slices.Contains(keyStatuses, status) {
					return usagef("--status %q: want one of %s", status, strings.Join(keyStatuses, ", "))
				}
				query.Set("status", status)
			}
			if cmd.Flags().Changed("expiring") {
				d, err := parseDuration("expiring", expiring)
				if err != nil {
					return err
				}
				query.Set("ends_before", time.Now().Add(d).UTC().Format(time.RFC3339Nano))
			}
			list, err := listAll(c, cmd, admin.Path("keys"), query, limit, func(k admin.Key) string { return k.ID })
			if err != nil {
				return err
			}
			return c.show(cmd, list, func(t *table) {
				t.row("ID", "STATUS", "ACCOUNT", "NAME", "PLAN", "SCOPES", "EXPIRES", "OVERLAP ENDS")
				for i := range list {
					k := &list[i]
					t.row(k.ID, statusText(k), k.Account, short(k.Name), k.Plan, short(strings.Join(k.Scopes, ",")), when(k.ExpiresAt), when(k.OverlapEnds))
				}
			})
		},
	}
	f := cmd.Flags()
	f.StringVar(&account, "account", "", "only keys of that account")
	f.StringVar(&status, "status", "", "only keys that are "+strings.Join(keyStatuses, ", "))
	f.StringVar(&expiring, "expiring", "", "only keys that stop working within that time, by expiry or as their overlap ends: 30d, 12h")
	f.IntVar(&limit, "limit", 1000, "how many at most")
	return cmd
}

// statusText says what a request with the key would meet: the key's own state, and that of an account that stands in its way.
func statusText(k *admin.Key) string {
	if k.AccountStatus == "" {
		return k.Status
	}
	return k.Status + " (account " + k.AccountStatus + ")"
}

func (c *cli) keyShowCmd() *cobra.Command {
	return &cobra.Command{
		Use: "show KEY", Short: "Show a key", Args: args(keyArg),
		RunE: func(cmd *cobra.Command, a []string) error {
			id, err := c.keyID(cmd, a[0])
			if err != nil {
				return err
			}
			return c.oneKey(cmd, "GET", id, nil)
		},
	}
}

func (c *cli) keyUpdateCmd() *cobra.Command {
	var name, plan, expiresAt, expiresIn string
	var noExpiry, force bool
	var scopes, set, unset []string
	cmd := &cobra.Command{
		Use: "update KEY", Short: "Change a key", Args: args(keyArg),
		RunE: func(cmd *cobra.Command, a []string) error {
			var in admin.KeyUpdate
			f := cmd.Flags()
			if f.Changed("name") {
				in.Name = &name
			}
			if f.Changed("plan") {
				in.Plan = &plan
			}
			if f.Changed("scopes") {
				in.Scopes = &scopes
			}
			if f.Changed("expires-at") || f.Changed("expires-in") || noExpiry {
				at, err := expiry(expiresAt, expiresIn)
				if err != nil {
					return err
				}
				if at.IsZero() != noExpiry { // an empty variable must not make a key immortal
					return usagef("give one of --expires-at, --expires-in and --no-expiry, and not an empty one")
				}
				in.ExpiresAt = &at
			}
			var err error
			if in.Meta, err = metaPatch(set, unset); err != nil {
				return err
			}
			if in.Name == nil && in.Plan == nil && in.Scopes == nil && in.ExpiresAt == nil && in.Meta == nil {
				return usagef("nothing to change: give --name, --plan, --scopes, --expires-at, --expires-in, --no-expiry, --meta or --unset")
			}
			in.Force = force
			id, err := c.keyID(cmd, a[0])
			if err != nil {
				return err
			}
			return c.oneKey(cmd, "PATCH", id, in)
		},
	}
	f := cmd.Flags()
	f.StringVar(&name, "name", "", "name for people")
	f.StringVar(&plan, "plan", "", "plan, if not the account's")
	f.StringSliceVar(&scopes, "scopes", nil, "what the key may do, in place of all there are")
	f.StringVar(&expiresAt, "expires-at", "", "when the key expires: a date, at its end, or a time")
	f.StringVar(&expiresIn, "expires-in", "", "how long the key is good from now: 30d, 12h")
	f.BoolVar(&noExpiry, "no-expiry", false, "let the key be good for ever")
	metaFlags(f, &set, &unset)
	f.BoolVar(&force, "force", false, "also if the key would be expired at once")
	return cmd
}

func (c *cli) keySwitchCmd(verb, short string, disabled *bool) *cobra.Command {
	return &cobra.Command{
		Use: verb + " KEY", Short: short, Args: args(keyArg),
		RunE: func(cmd *cobra.Command, a []string) error {
			id, err := c.keyID(cmd, a[0])
			if err != nil {
				return err
			}
			var k admin.Key
			if err := c.do(cmd, "PATCH", admin.Path("keys", id), admin.KeyUpdate{Disabled: disabled}, &k); err != nil {
				return err
			}
			if status := statusText(&k); !*disabled && status != "active" {
				_, _ = fmt.Fprintf(cmd.ErrOrStderr(), "tollkeeper: the key is on, and is refused all the same: it is %s\n", strings.ReplaceAll(status, "_", " "))
			}
			return c.show(cmd, k, func(t *table) { printKey(t, k) })
		},
	}
}

func (c *cli) keyRotateCmd() *cobra.Command {
	var overlap string
	var quiet bool
	cmd := &cobra.Command{
		Use: "rotate KEY", Short: "Replace a key by a successor",
		Long: `Replace a key by a successor with the same rights, the same expiry and the same balance.
Both work until the overlap ends, then only the successor.`,
		Args: args(keyArg),
		RunE: func(cmd *cobra.Command, a []string) error {
			d, err := parseDuration("overlap", overlap)
			if err != nil {
				return err
			}
			id, err := c.keyID(cmd, a[0])
			if err != nil {
				return err
			}
			var r admin.Rotation
			body := map[string]int64{"overlap_seconds": int64(d.Seconds())}
			if err := c.do(cmd, "POST", admin.Path("keys", id, "rotate"), body, &r); err != nil {
				return err
			}
			return c.show(cmd, r, func(t *table) {
				if newKey(t, r.Successor, quiet); quiet {
					return
				}
				t.line(fmt.Sprintf("\n%s works until %s.", r.Old.ID, when(r.Old.OverlapEnds)))
			})
		},
	}
	cmd.Flags().StringVar(&overlap, "overlap", "24h", "how long both keys work: 7d, 1h, 0s")
	quietFlag(cmd.Flags(), &quiet)
	return cmd
}

func (c *cli) keyRevokeCmd() *cobra.Command {
	var cause string
	cmd := &cobra.Command{
		Use: "revoke KEY", Short: "Revoke a key for good", Args: args(keyArg),
		RunE: func(cmd *cobra.Command, a []string) error {
			id, err := c.keyID(cmd, a[0])
			if err != nil {
				return err
			}
			var out admin.Revoked
			if err := c.do(cmd, "POST", admin.Path("keys", id, "revoke"), map[string]string{"cause": cause}, &out); err != nil {
				return err
			}
			return c.show(cmd, out, func(t *table) { t.line(out.ID + " is revoked.") })
		},
	}
	cmd.Flags().StringVar(&cause, "cause", "", "why, for the record")
	return cmd
}

// keyIDForm is the form of ids. A key that was imported may begin like one, and is not to travel as one.
var keyIDForm = regexp.MustCompile(`^key_[0-9A-Za-z]{20}$`)

// keyID takes an id, or a key's text, of which only the hash is sent.
func (c *cli) keyID(cmd *cobra.Command, arg string) (string, error) {
	arg = strings.TrimSpace(arg)
	if arg == "" {
		return "", usagef("give %s", keyArg)
	}
	if keyIDForm.MatchString(arg) {
		return arg, nil
	}
	sum := sha256.Sum256([]byte(arg))
	var k admin.Key
	err := c.do(cmd, "POST", admin.Path("keys", "lookup"), map[string]string{"sha256": hex.EncodeToString(sum[:])}, &k)
	if r, ok := err.(*admin.Refused); ok && r.Status == 404 {
		return "", fmt.Errorf("that is neither the id of a key (key_…) nor a key that is known here")
	}
	return k.ID, err
}

func (c *cli) oneKey(cmd *cobra.Command, method, id string, in any) error {
	var k admin.Key
	if err := c.do(cmd, method, admin.Path("keys", id), in, &k); err != nil {
		return err
	}
	return c.show(cmd, k, func(t *table) { printKey(t, k) })
}
