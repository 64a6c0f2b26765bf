package main

import (
	"crypto/sha256"
	"encoding/hex"
	"errors"
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
	cmd := &cobra.Command{Use: "key", Short: "Manage API keys"}
	yes, no := true, false
	cmd.AddCommand(
		c.keyCreateCmd(), c.importCmd(), readOnly(c.keyListCmd()), readOnly(c.keyShowCmd()), c.keyUpdateCmd(), c.keyRotateCmd(),
		c.keySwitchCmd("disable", "Disable a key; it can be enabled again", &yes),
		c.keySwitchCmd("enable", "Enable a key again", &no),
		c.keyRevokeCmd(),
	)
	return group(cmd)
}

const (
	keyArg    = "the id of a key, or the key itself"
	exampleID = "key_00000000000000000000"
)

func (c *cli) keyCreateCmd() *cobra.Command {
	var in admin.KeyCreate
	var notBefore, expiresAt, expiresIn string
	var metaPairs []string
	var quiet bool
	cmd := &cobra.Command{
		Use: "create", Short: "Create a key; it is shown once", Args: args(),
		Example: `  tollkeeper key create --account acme --name ci --scopes read,write --expires-in 90d
  KEY=$(tollkeeper key create --account acme --quiet)`,
		RunE: func(cmd *cobra.Command, _ []string) (err error) {
			if in.Account == "" {
				return usagef("give the account that the key belongs to, such as --account acme")
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
				return usagef("--expires-at and --expires-in must not be empty: for a key that never expires, remove them")
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
	f.StringVar(&in.Plan, "plan", "", "plan, if it differs from the plan of the account")
	f.StringVar(&in.Environment, "env", "", "environment; live if not given")
	f.StringSliceVar(&in.Scopes, "scopes", nil, "permissions of the key, such as read,write")
	f.StringVar(&notBefore, "not-before", "", "when the key becomes valid: a time, or a date for its start")
	expiryFlags(f, &expiresAt, &expiresIn)
	f.StringArrayVar(&metaPairs, "meta", nil, "name=value that policies can read (repeatable)")
	f.BoolVar(&in.Force, "force", false, "create the key even if it is expired already")
	quietFlag(f, &quiet)
	return cmd
}

func expiryFlags(f *pflag.FlagSet, at, in *string) {
	f.StringVar(at, "expires-at", "", "when the key expires: a time, or a date for its end")
	f.StringVar(in, "expires-in", "", "how long the key is valid from now, such as 30d or 12h")
}

// newKey prints a key that was just created: its text first, and nothing else if quiet.
func newKey(t *table, k admin.Key, quiet bool) {
	if quiet {
		t.line(k.Key)
		return
	}
	t.line("Keep this key. It is shown only once:\n\n  " + k.Key + "\n")
	printKey(t, k)
}

func quietFlag(f *pflag.FlagSet, quiet *bool) {
	f.BoolVarP(quiet, "quiet", "q", false, "print only the key")
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

// keyStatuses are the values of --status.
var keyStatuses = []string{"active", "not_yet_valid", "expired", "disabled", "rotated", "revoked"}

func (c *cli) keyListCmd() *cobra.Command {
	var account, status, expiring string
	var limit int
	cmd := &cobra.Command{
		Use: "list", Short: "List keys", Args: args(),
		Example: "  tollkeeper key list --account acme\n  tollkeeper key list --status active --expiring 30d",
		RunE: func(cmd *cobra.Command, _ []string) error {
			query := url.Values{}
			if cmd.Flags().Changed("account") {
				if account == "" {
					return usagef("--account must not be empty: give the id of an account")
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
	f.StringVar(&account, "account", "", "list only keys of this account")
	f.StringVar(&status, "status", "", "list only keys that are "+strings.Join(keyStatuses, ", "))
	f.StringVar(&expiring, "expiring", "", "list only keys that end within this time, by expiry or overlap, such as 30d")
	f.IntVar(&limit, "limit", 1000, "most keys to list")
	return cmd
}

// statusText returns the status of a key, and the status of its account if that is refused.
func statusText(k *admin.Key) string {
	if k.AccountStatus == "" {
		return k.Status
	}
	return k.Status + " (account " + k.AccountStatus + ")"
}

func (c *cli) keyShowCmd() *cobra.Command {
	return &cobra.Command{
		Use: "show KEY", Short: "Show a key", Example: "  tollkeeper key show " + exampleID, Args: args(keyArg),
		RunE: func(cmd *cobra.Command, a []string) error {
			id, err := c.keyID(cmd, a[0])
			if err != nil {
				return err
			}
			return c.oneKey(cmd, "GET", id, nil)
		},
	}
}

// keyChanges is the flags of key update.
type keyChanges struct {
	name, plan, expiresAt, expiresIn string
	noExpiry, force                  bool
	scopes, set, unset               []string
}

func (c *cli) keyUpdateCmd() *cobra.Command {
	var k keyChanges
	cmd := &cobra.Command{
		Use: "update KEY", Short: "Change a key", Args: args(keyArg),
		Example: "  tollkeeper key update " + exampleID + " --scopes read --expires-in 30d",
		RunE: func(cmd *cobra.Command, a []string) error {
			in, err := k.update(cmd.Flags())
			if err != nil {
				return err
			}
			id, err := c.keyID(cmd, a[0])
			if err != nil {
				return err
			}
			return c.oneKey(cmd, "PATCH", id, in)
		},
	}
	f := cmd.Flags()
	f.StringVar(&k.name, "name", "", "name for people")
	f.StringVar(&k.plan, "plan", "", "plan, if it differs from the plan of the account")
	f.StringSliceVar(&k.scopes, "scopes", nil, "new permissions of the key")
	expiryFlags(f, &k.expiresAt, &k.expiresIn)
	f.BoolVar(&k.noExpiry, "no-expiry", false, "remove the expiry of the key")
	metaFlags(f, &k.set, &k.unset)
	f.BoolVar(&k.force, "force", false, "change the key even if it would be expired at once")
	return cmd
}

// update returns the change that the flags ask for.
func (k *keyChanges) update(f *pflag.FlagSet) (in admin.KeyUpdate, err error) {
	if f.Changed("name") {
		in.Name = &k.name
	}
	if f.Changed("plan") {
		in.Plan = &k.plan
	}
	if f.Changed("scopes") {
		in.Scopes = &k.scopes
	}
	if f.Changed("expires-at") || f.Changed("expires-in") || k.noExpiry {
		at, err := expiry(k.expiresAt, k.expiresIn)
		if err != nil {
			return in, err
		}
		if at.IsZero() != k.noExpiry { // an empty variable must not remove the expiry
			return in, usagef("give one of --expires-at, --expires-in and --no-expiry, and not an empty one")
		}
		in.ExpiresAt = &at
	}
	if in.Meta, err = metaPatch(k.set, k.unset); err != nil {
		return in, err
	}
	if in.Name == nil && in.Plan == nil && in.Scopes == nil && in.ExpiresAt == nil && in.Meta == nil {
		return in, usagef("nothing to change: give --name, --plan, --scopes, --expires-at, --expires-in, --no-expiry, --meta or --unset")
	}
	in.Force = k.force
	return in, nil
}

func (c *cli) keySwitchCmd(verb, short string, disabled *bool) *cobra.Command {
	return &cobra.Command{
		Use: verb + " KEY", Short: short, Example: "  tollkeeper key " + verb + " " + exampleID, Args: args(keyArg),
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
				note(cmd, "the key is enabled and still refused: it is %s", strings.ReplaceAll(status, "_", " "))
			}
			return c.show(cmd, k, func(t *table) { printKey(t, k) })
		},
	}
}

func (c *cli) keyRotateCmd() *cobra.Command {
	var overlap string
	var quiet bool
	cmd := &cobra.Command{
		Use: "rotate KEY", Short: "Replace a key with a successor",
		Long: `Replace a key with a successor that has the same rights, expiry and balance. Both keys
work until the overlap ends; then only the successor works.`,
		Example: "  tollkeeper key rotate " + exampleID + " --overlap 7d",
		Args:    args(keyArg),
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
				t.sentence("\nKey %s works until %s.", r.Old.ID, when(r.Old.OverlapEnds))
			})
		},
	}
	cmd.Flags().StringVar(&overlap, "overlap", "24h", "how long both keys work, such as 7d, 1h or 0s")
	quietFlag(cmd.Flags(), &quiet)
	return cmd
}

func (c *cli) keyRevokeCmd() *cobra.Command {
	var cause string
	cmd := &cobra.Command{
		Use: "revoke KEY", Short: "Revoke a key for good", Args: args(keyArg),
		Example: "  tollkeeper key revoke " + exampleID + " --cause leaked",
		RunE: func(cmd *cobra.Command, a []string) error {
			id, err := c.keyID(cmd, a[0])
			if err != nil {
				return err
			}
			var out admin.Revoked
			if err := c.do(cmd, "POST", admin.Path("keys", id, "revoke"), map[string]string{"cause": cause}, &out); err != nil {
				return err
			}
			return c.show(cmd, out, func(t *table) { t.sentence("Key %s is revoked.", out.ID) })
		},
	}
	cmd.Flags().StringVar(&cause, "cause", "", "why, for the record")
	return cmd
}

// keyIDForm is the form of ids. It is strict, because an imported key may begin like an id and must not be sent as one.
var keyIDForm = regexp.MustCompile(`^key_[0-9A-Za-z]{20}$`)

// keyID returns the id of a key. The argument is an id, or the text of a key. Of a text, only the hash is sent.
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
		return "", errors.New("there is no such key: want its id (key_…), or the key itself")
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
