// Package config is the server's configuration file: one strict YAML document in which every field has a default, so
// that no file at all is a working configuration. Any field can be overridden by an environment variable whose name is
// its path in capitals: TOLLKEEPER_LISTEN_GRPC for listen.grpc, TOLLKEEPER_TOKENS_ISSUERS_0_ISSUER for the first issuer.
// A variable that begins so and is none of them is an error, but for those that Kubernetes makes of Services.
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

// EnvPrefix begins the name of every environment variable that is looked at.
const EnvPrefix = "TOLLKEEPER_"

// Config is the whole configuration. Default tells what each field is when it is not set.
type Config struct {
	Listen Listen `yaml:"listen" envPrefix:"LISTEN_"`
	TLS    TLS    `yaml:"tls" envPrefix:"TLS_"`
	Policy Policy `yaml:"policy" envPrefix:"POLICY_"`
	// DataDir is the folder for the database and the admin token. It is made if it is not there.
	DataDir string `yaml:"data_dir" env:"DATA_DIR"`
	// Store is where keys, revocations and quotas are kept: bolt (a file in DataDir) or memory (lost at exit).
	Store       string      `yaml:"store" env:"STORE"`
	Request     Request     `yaml:"request" envPrefix:"REQUEST_"`
	Credentials Credentials `yaml:"credentials" envPrefix:"CREDENTIALS_"`
	Keys        Keys        `yaml:"keys" envPrefix:"KEYS_"`
	Tokens      Tokens      `yaml:"tokens" envPrefix:"TOKENS_"`
	Answers     Answers     `yaml:"answers" envPrefix:"ANSWERS_"`
	Revocation  Revocation  `yaml:"revocation" envPrefix:"REVOCATION_"`
	Log         Log         `yaml:"log" envPrefix:"LOG_"`
	Shutdown    Shutdown    `yaml:"shutdown" envPrefix:"SHUTDOWN_"`
}

// Policy says which policies decide.
type Policy struct {
	// Paths are files and folders of Rego, JSON and YAML. Empty: the policies that ship with the binary.
	Paths []string `yaml:"paths" env:"PATHS"`
	// Query is the rule that decides, as a path.
	Query string `yaml:"query" env:"QUERY"`
	// Profile chooses the statuses of the shipped policies: strict, article or rfc. Empty: what the data says.
	Profile string `yaml:"profile" env:"PROFILE"`
	// RegoVersion is the version of Rego in which Paths are written: v1, or v0 for rules from before OPA 1.0, without "if"
	// and "contains". Files in v1 may stand beside those in v0.
	RegoVersion string `yaml:"rego_version" env:"REGO_VERSION"`
	// StrictErrors denies with policy_error where a function of Rego fails, such as to_number of a text. Without it the
	// expression is undefined, so that a rule such as "deny if not f(x) < 5" denies and one such as "deny if f(x) > 5"
	// does not; the error is counted and logged all the same. Not set: true where the shipped rules decide, false else, as
	// OPA has it.
	StrictErrors *bool `yaml:"strict_errors" env:"STRICT_ERRORS"`
	// AllowRemovedPlans lets a reload, or a start, take away plans, limits and reasons that accounts, keys or routes use. Their
	// customers are denied with policy_error.
	AllowRemovedPlans bool `yaml:"allow_removed_plans" env:"ALLOW_REMOVED_PLANS"`
	// Memo is how many verdicts are remembered, in 64 MiB of memory at most. A verdict is asked for again only when
	// something that the policy reads is another. 0: none is remembered.
	Memo int `yaml:"memo" env:"MEMO"`
	// ReloadInterval is how often Paths are looked at for changes. 0: only on SIGHUP.
	ReloadInterval Duration `yaml:"reload_interval" env:"RELOAD_INTERVAL"`
}

// Request says how requests are read and decided.
type Request struct {
	// Timeout bounds a decision; Envoy's own deadline wins if it is earlier.
	Timeout Duration `yaml:"timeout" env:"TIMEOUT"`
	// DryRun lets through what the policy denies. Requests that cannot be understood or decided stay denied, also where the
	// policy itself says so: policy_error, store_unavailable, state_stale, decision_timeout, token_status_unknown.
	DryRun bool `yaml:"dry_run" env:"DRY_RUN"`
	// SkipBodyParse leaves request bodies alone.
	SkipBodyParse bool `yaml:"skip_body_parse" env:"SKIP_BODY_PARSE"`
	// ProtoDescriptor is a FileDescriptorSet by which gRPC bodies are decoded. Empty: they are not.
	ProtoDescriptor string `yaml:"proto_descriptor" env:"PROTO_DESCRIPTOR"`
}

// Credentials says where in a request the key may stand.
type Credentials struct {
	Headers []string `yaml:"headers" env:"HEADERS"`
	Bearer  bool     `yaml:"bearer" env:"BEARER"` // Authorization: Bearer
	// Off by default: query strings end up in logs. Envoy has to let :path be set, by which a key is taken out.
	Query   []string `yaml:"query" env:"QUERY"`
	Cookies []string `yaml:"cookies" env:"COOKIES"`
	// Keep leaves the key in the request that goes to the upstream.
	Keep bool `yaml:"keep" env:"KEEP"`
}

// Keys says how keys are kept.
type Keys struct {
	// PepperFile holds a secret of 16 bytes or more that is mixed into the digests of all keys. It has to be there from
	// the beginning: without it no key is found. Empty: no pepper.
	PepperFile string `yaml:"pepper_file" env:"PEPPER_FILE"`
}

// Answers shapes what callers see.
type Answers struct {
	Realm string `yaml:"realm" env:"REALM"`
	// ProblemBase and a reason's code make the type of a problem document.
	ProblemBase string `yaml:"problem_base" env:"PROBLEM_BASE"`
	// BillingURL is where a caller who gets a 402 can pay. Empty: no link is sent.
	BillingURL string `yaml:"billing_url" env:"BILLING_URL"`
}

// Revocation says how old the revocation list may be, and who may add to it.
type Revocation struct {
	// MaxStaleness is the age from which the list is stale, on which the shipped policies deny.
	MaxStaleness Duration `yaml:"max_staleness" env:"MAX_STALENESS"`
	// Clients are those who may revoke tokens by RFC 7009. Without any, nobody may.
	Clients []Client `yaml:"clients" envPrefix:"CLIENTS_"`
	// EventAuthorizationFile holds what the Authorization header of a pushed security event has to be, besides the event's
	// signature. Empty: the signature alone counts.
	EventAuthorizationFile string `yaml:"event_authorization_file" env:"EVENT_AUTHORIZATION_FILE"`
}

// Client is somebody who proves with a secret who he is.
type Client struct {
	ID         string `yaml:"id" env:"ID"`
	SecretFile string `yaml:"secret_file" env:"SECRET_FILE"`
}

// Log says what is logged.
type Log struct {
	Level string `yaml:"level" env:"LEVEL"` // debug, info, warn or error
	// Decisions is where decisions are written, one JSON object a line: stdout, stderr, off or a file. A file that is moved
	// or removed is made anew, with the next decision or on SIGHUP, so that logrotate needs no more than that.
	Decisions string `yaml:"decisions" env:"DECISIONS"`
}

// Duration is a time such as 250ms or 1m30s. A text that is not one is kept, to be reported with its place in the file.
type Duration struct {
	time.Duration
	fault string
}

// UnmarshalText reads a duration.
func (d *Duration) UnmarshalText(text []byte) error {
	v, err := time.ParseDuration(string(text))
	if *d = (Duration{Duration: v}); err != nil {
		d.fault = string(text)
	}
	return nil
}

// Default is the configuration without a file.
func Default() Config {
	return Config{
		Listen:      defaultListen(),
		Policy:      Policy{Query: "envoy/authz/allow", Memo: 20_000, ReloadInterval: Duration{Duration: 500 * time.Millisecond}},
		DataDir:     "./data",
		Store:       "bolt",
		Request:     Request{Timeout: Duration{Duration: 250 * time.Millisecond}},
		Credentials: Credentials{Headers: []string{"x-api-key"}, Bearer: true},
		Answers: Answers{
			Realm: "api", ProblemBase: "https://github.com/tollkeeper-authz/tollkeeper/blob/main/policies/README.md#",
		},
		Tokens:     defaultTokens(),
		Revocation: Revocation{MaxStaleness: Duration{Duration: 30 * time.Second}},
		Log:        Log{Level: "info", Decisions: "stdout"},
		Shutdown:   defaultShutdown(),
	}
}

// bound is the least that a duration can be.
type bound struct {
	field string
	value Duration
	least time.Duration
}

var headerName = regexp.MustCompile("^[a-z0-9!#$%&'*+.^_`|~-]+$")

// validate returns the first field that cannot be honoured, and why.
func (c *Config) validate() (field string, err error) {
	for i, h := range c.Credentials.Headers {
		c.Credentials.Headers[i] = strings.ToLower(h)
		if !headerName.MatchString(c.Credentials.Headers[i]) || strings.EqualFold(h, "authorization") {
			return "credentials.headers", fmt.Errorf("%q: want header names; for Authorization set bearer: true", h)
		}
	}
	if u, err := url.Parse(c.Answers.BillingURL); err != nil || c.Answers.BillingURL != "" && (u.Host == "" || strings.ContainsAny(c.Answers.BillingURL, "<> ")) {
		return "answers.billing_url", fmt.Errorf("%q: want a URL such as https://example.com/billing", c.Answers.BillingURL)
	}
	if field, err := c.Listen.validate(); err != nil {
		return field, err
	}
	if field, err := c.TLS.validate(); err != nil {
		return field, err
	}
	for i, client := range c.Revocation.Clients {
		if client.ID == "" || client.SecretFile == "" {
			return fmt.Sprintf("revocation.clients[%d]", i), errors.New("want an id and a secret_file")
		}
	}
	for _, d := range append(c.Tokens.durations(),
		bound{"request.timeout", c.Request.Timeout, 1}, bound{"revocation.max_staleness", c.Revocation.MaxStaleness, 1},
		bound{"policy.reload_interval", c.Policy.ReloadInterval, 0}, bound{"listen.max_connection_age", c.Listen.MaxConnectionAge, 0},
		bound{"shutdown.delay", c.Shutdown.Delay, 0},
	) {
		if d.value.fault != "" {
			return d.field, fmt.Errorf("%q: want a duration, such as 250ms or 30s", d.value.fault)
		}
		if d.value.Duration < d.least {
			return d.field, fmt.Errorf("%v: want a longer time, such as 250ms", d.value.Duration)
		}
	}
	switch {
	case c.Tokens.Skew.Duration > maxSkew:
		return "tokens.skew", fmt.Errorf("%v: want at most %v", c.Tokens.Skew.Duration, maxSkew)
	case c.Tokens.MaxBytes < 1:
		return "tokens.max_bytes", fmt.Errorf("%d: want a number of bytes, such as 16384", c.Tokens.MaxBytes)
	case c.Tokens.Introspection.MaxRefusals < 0:
		return "tokens.introspection.max_refusals", fmt.Errorf("%d: want a number of tokens, or 0 for any", c.Tokens.Introspection.MaxRefusals)
	case !slices.Contains([]string{"", "strict", "article", "rfc"}, c.Policy.Profile):
		return "policy.profile", fmt.Errorf("%q: want strict, article or rfc", c.Policy.Profile)
	case !slices.Contains([]string{"", "v0", "v1"}, c.Policy.RegoVersion):
		return "policy.rego_version", fmt.Errorf("%q: want v1 or v0", c.Policy.RegoVersion)
	case c.Policy.Memo < 0:
		return "policy.memo", fmt.Errorf("%d: want a number of verdicts, or 0 for none", c.Policy.Memo)
	case c.Policy.Query == "":
		return "policy.query", errors.New("want the path of a rule, such as envoy/authz/allow")
	case !slices.Contains([]string{"bolt", "memory"}, c.Store):
		return "store", fmt.Errorf("%q: want bolt or memory", c.Store)
	case c.DataDir == "":
		return "data_dir", errors.New("want a folder")
	case !slices.Contains([]string{"debug", "info", "warn", "error"}, c.Log.Level):
		return "log.level", fmt.Errorf("%q: want debug, info, warn or error", c.Log.Level)
	case c.Log.Decisions == "":
		return "log.decisions", errors.New("want stdout, stderr, off or a file")
	}
	return "", nil
}
