package main

import (
	"fmt"
	"io"
	"net/url"
	"strings"
	"time"

	"github.com/spf13/cobra"

	"github.com/tollkeeper-authz/tollkeeper/authz/admin"
)

func (c *cli) tokenCmd() *cobra.Command {
	cmd := &cobra.Command{Use: "token", Short: "Inspect and revoke bearer tokens"}
	cmd.AddCommand(c.tokenRevokeCmd(), readOnly(c.tokenListCmd()), readOnly(c.tokenInspectCmd()))
	return group(cmd)
}

// tokenText returns the token in an argument, or on standard input for "-", which keeps it out of the shell's history.
func tokenText(cmd *cobra.Command, arg string) (string, error) {
	if arg != "-" {
		return strings.TrimSpace(arg), nil
	}
	raw, err := io.ReadAll(io.LimitReader(cmd.InOrStdin(), 1<<20))
	if err == nil && strings.TrimSpace(string(raw)) == "" {
		return "", usagef("standard input is empty: want a token")
	}
	return strings.TrimSpace(string(raw)), err
}

// matchers are the flags that say which tokens to revoke, each with the kind of its record.
var matchers = []struct{ flag, kind, usage string }{
	{"jti", "jti", "revoke the token with that jti"},
	{"sid", "sid", "revoke all tokens of that session"},
	{"sub", "sub", "revoke all tokens that the subject was issued until now"},
	{"client", "client", "revoke all tokens that the client was issued until now"},
	{"signing-key", "signing_key", "revoke all tokens signed with the key of that kid"},
	{"suspend", "suspension", "refuse all tokens of the subject, later ones too, until the suspension is lifted"},
	{"lift", "suspension", "lift the suspension of the subject"},
}

func (c *cli) tokenRevokeCmd() *cobra.Command {
	var in admin.TokenRevoke
	var before string
	values := make([]string, len(matchers))
	cmd := &cobra.Command{
		Use: "revoke [TOKEN]", Short: "Revoke a token, or all tokens that match a flag",
		Long: `Revoke a token (- reads it from standard input), or all tokens that match a flag. The
revocation has taken effect, and is on disk, when the command returns. Clocks of issuers
may be ahead by tokens.skew (30s): after --sub or --client, a user who signs in again
within that time may have to sign in once more.`,
		Example: `  tollkeeper token revoke - < token.txt
  tollkeeper token revoke --sub alice --issuer https://id.example.com --cause "laptop stolen"
  tollkeeper token revoke --suspend alice`,
		RunE: func(cmd *cobra.Command, a []string) (err error) {
			given := len(a)
			for i, m := range matchers {
				if cmd.Flags().Changed(m.flag) {
					given++
					in.Kind, in.Value, in.Lift = m.kind, values[i], m.flag == "lift"
				}
			}
			if given != 1 {
				return usagef("give a token, or one of --jti, --sid, --sub, --client, --signing-key, --suspend and --lift")
			}
			if len(a) == 1 {
				if in.Token, err = tokenText(cmd, a[0]); err != nil {
					return err
				}
			}
			if in.Before, err = revokedBefore(in.Kind, before); err != nil {
				return err
			}
			var out admin.Revoked
			if err := c.do(cmd, "POST", admin.Path("tokens", "revoke"), in, &out); err != nil {
				return err
			}
			return c.show(cmd, out, func(t *table) { printRevoked(t, &in, &out) })
		},
	}
	f := cmd.Flags()
	for i, m := range matchers {
		f.StringVar(&values[i], m.flag, "", m.usage)
	}
	f.StringVar(&in.Issuer, "issuer", "", "issuer of the tokens; not needed if only one is configured")
	f.StringVar(&before, "before", "", "with --sub and --client: only tokens with an iat up to this date or time, not up to now")
	f.StringVar(&in.Cause, "cause", "", "why, for the record")
	return cmd
}

// revokedBefore reads --before; zero if it is not given.
func revokedBefore(kind, before string) (time.Time, error) {
	if before == "" {
		return time.Time{}, nil
	}
	if kind != "sub" && kind != "client" {
		return time.Time{}, usagef("--before needs --sub or --client")
	}
	if now := time.Now(); before == now.Format(time.DateOnly) {
		return now, nil // not the end of today: tokens of the rest of the day are not issued yet
	}
	return parseTime("before", before, endOfDay)
}

func printRevoked(t *table, in *admin.TokenRevoke, out *admin.Revoked) {
	switch {
	case in.Token != "":
		t.sentence("The token is revoked.")
	case in.Lift:
		t.sentence("The suspension of subject %q is lifted.", out.ID)
	case in.Kind == "suspension":
		t.sentence("Subject %q is suspended.", out.ID)
	default:
		t.sentence("Tokens with the %s %q are revoked.", strings.ReplaceAll(out.Kind, "_", " "), out.ID)
	}
}

func (c *cli) tokenListCmd() *cobra.Command {
	var after uint64
	var limit int
	cmd := &cobra.Command{
		Use: "list", Short: "List revocations of tokens, keys and accounts, oldest first", Args: args(),
		Example: "  tollkeeper token list\n  tollkeeper token list --after 100 --limit 1000",
		RunE: func(cmd *cobra.Command, _ []string) error {
			query := url.Values{"after": {fmt.Sprint(after)}, "limit": {fmt.Sprint(limit)}}
			var list []admin.Revocation
			if err := c.do(cmd, "GET", admin.Path("revocations")+"?"+query.Encode(), nil, &list); err != nil {
				return err
			}
			if n := len(list); n > 0 && n == limit {
				note(cmd, "there may be more than these %d: list the rest with --after %d", n, list[n-1].Revision)
			}
			return c.show(cmd, list, func(t *table) {
				t.row("REVISION", "KIND", "VALUE", "ISSUER", "UNTIL", "AT", "KEPT UNTIL", "CAUSE")
				for _, r := range list {
					kind := r.Kind
					if r.Lifted {
						kind += " (lifted)"
					}
					t.row(fmt.Sprint(r.Revision), kind, r.Value, r.Issuer, when(r.Before), when(r.At), when(r.ExpiresAt), short(r.Cause))
				}
			})
		},
	}
	cmd.Flags().Uint64Var(&after, "after", 0, "list only revisions after this one")
	cmd.Flags().IntVar(&limit, "limit", 100, "most revocations to list, up to 1000")
	return cmd
}

func (c *cli) tokenInspectCmd() *cobra.Command {
	return &cobra.Command{
		Use: "inspect TOKEN", Short: "Show the status and the claims of a token", Args: args("the token, or - for standard input"),
		Example: "  tollkeeper token inspect - < token.txt",
		RunE: func(cmd *cobra.Command, a []string) error {
			text, err := tokenText(cmd, a[0])
			if err != nil {
				return err
			}
			var v admin.TokenView
			if err := c.do(cmd, "POST", admin.Path("tokens", "inspect"), admin.TokenInspect{Token: text}, &v); err != nil {
				return err
			}
			return c.show(cmd, v, func(t *table) {
				t.field("status", strings.ReplaceAll(v.Status, "_", " "))
				t.field("fault", v.Fault)
				t.field("issuer", v.Issuer)
				t.field("id", v.ID)
				t.field("subject", v.Subject)
				t.field("session", v.Session)
				t.field("client", v.Client)
				t.field("account", v.Account)
				t.field("plan", v.Plan)
				t.field("scopes", strings.Join(v.Scopes, " "))
				t.field("issued", when(v.IssuedAt))
				t.field("good until", when(v.ExpiresAt))
				t.field("claims", meta(v.Claims))
			})
		},
	}
}
