package config

import (
	"errors"
	"fmt"
	"net/url"
	"regexp"
	"slices"
	"strings"
	"time"
)

// validate returns the first field that cannot be honoured, and why. It also brings names of headers into lower case.
func (c *Config) validate() (field string, err error) {
	for _, section := range []func() (string, error){
		c.Credentials.validate, c.Answers.validate, c.Listen.validate, c.TLS.validate, c.Revocation.validate, c.validateTimes,
		c.Tokens.validate, c.Policy.validate, c.Store.validate, c.validateDataDir, c.Log.validate,
	} {
		if field, err := section(); err != nil {
			return field, err
		}
	}
	return "", nil
}

// headerName matches a token of RFC 9110, section 5.6.2, in lower case.
var headerName = regexp.MustCompile("^[a-z0-9!#$%&'*+.^_`|~-]+$")

func (c *Credentials) validate() (field string, err error) {
	for i, h := range c.Headers {
		c.Headers[i] = strings.ToLower(h)
		if !headerName.MatchString(c.Headers[i]) || c.Headers[i] == "authorization" {
			return "credentials.headers", fmt.Errorf("%q: want header names; for Authorization set bearer: true", h)
		}
	}
	return "", nil
}

// The names that answers.identity and answers.metadata may list.
var (
	identityNames = []string{"key-id", "account", "plan", "subject", "issuer"}
	metadataNames = []string{"decision_id", "reason", "key_id", "account", "plan", "route", "issuer", "token_id", "subject", "rid"}
)

func (a *Answers) validate() (field string, err error) {
	u, err := url.Parse(a.BillingURL)
	if err != nil || a.BillingURL != "" && (u.Host == "" || strings.ContainsAny(a.BillingURL, "<> ")) {
		return "answers.billing_url", fmt.Errorf("%q: want a URL such as https://example.com/billing", a.BillingURL)
	}
	for _, list := range []struct {
		field        string
		given, known []string
	}{{"answers.identity", a.Identity, identityNames}, {"answers.metadata", a.Metadata, metadataNames}} {
		for _, name := range list.given {
			if !slices.Contains(list.known, name) {
				return list.field, fmt.Errorf("%q: want some of %s", name, strings.Join(list.known, ", "))
			}
		}
	}
	return "", nil
}

func (r *Revocation) validate() (field string, err error) {
	for i, client := range r.Clients {
		if client.ID == "" || client.SecretFile == "" {
			return fmt.Sprintf("revocation.clients[%d]", i), errors.New("want an id and a secret_file")
		}
	}
	return "", nil
}

// minimum is the least value of a duration.
type minimum struct {
	field string
	value Duration
	least time.Duration
}

func (c *Config) validateTimes() (field string, err error) {
	for _, m := range append(append(c.Tokens.durations(), c.Store.Postgres.durations()...),
		minimum{"request.timeout", c.Request.Timeout, 1}, minimum{"revocation.max_staleness", c.Revocation.MaxStaleness, 1},
		minimum{"policy.reload_interval", c.Policy.ReloadInterval, 0}, minimum{"listen.max_connection_age", c.Listen.MaxConnectionAge, 0},
		minimum{"shutdown.delay", c.Shutdown.Delay, 0},
	) {
		if m.value.fault != "" {
			return m.field, fmt.Errorf("%q: want a duration, such as 250ms or 30s", m.value.fault)
		}
		if m.value.Duration < m.least {
			return m.field, fmt.Errorf("%v: want a longer time, such as 250ms", m.value.Duration)
		}
	}
	return "", nil
}

func (t *Tokens) validate() (field string, err error) {
	switch {
	case t.Skew.Duration > maxSkew:
		return "tokens.skew", fmt.Errorf("%v: want at most %v", t.Skew.Duration, maxSkew)
	case t.MaxBytes < 1:
		return "tokens.max_bytes", fmt.Errorf("%d: want a number of bytes, such as 16384", t.MaxBytes)
	case t.Introspection.MaxRefusals < 0:
		return "tokens.introspection.max_refusals", fmt.Errorf("%d: want a number of tokens, or 0 for any", t.Introspection.MaxRefusals)
	}
	return "", nil
}

func (p *Policy) validate() (field string, err error) {
	switch {
	case !slices.Contains([]string{"", "strict", "article", "rfc"}, p.Profile):
		return "policy.profile", fmt.Errorf("%q: want strict, article or rfc", p.Profile)
	case !slices.Contains([]string{"", "v0", "v1"}, p.RegoVersion):
		return "policy.rego_version", fmt.Errorf("%q: want v1 or v0", p.RegoVersion)
	case p.Memo < 0:
		return "policy.memo", fmt.Errorf("%d: want a number of verdicts, or 0 for none", p.Memo)
	case !slices.Contains([]string{"compiled", "opa"}, p.Evaluator):
		return "policy.evaluator", fmt.Errorf("%q: want compiled or opa", p.Evaluator)
	case p.Recheck < 0:
		return "policy.recheck", fmt.Errorf("%d: want a number of decisions, such as 1000, or 0 for never", p.Recheck)
	case p.Query == "":
		return "policy.query", errors.New("want the path of a rule, such as envoy/authz/allow")
	}
	return "", nil
}

func (c *Config) validateDataDir() (field string, err error) {
	if c.DataDir == "" {
		return "data_dir", errors.New("want a folder")
	}
	return "", nil
}

func (l *Log) validate() (field string, err error) {
	switch {
	case !slices.Contains([]string{"debug", "info", "warn", "error"}, l.Level):
		return "log.level", fmt.Errorf("%q: want debug, info, warn or error", l.Level)
	case l.Decisions == "":
		return "log.decisions", errors.New("want stdout, stderr, off or a file")
	}
	return "", nil
}
