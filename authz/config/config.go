package config

import (
	"slices"
	"time"
)

// EnvPrefix begins the name of every environment variable that is read.
const EnvPrefix = "TOLLKEEPER_"

// Config is the whole configuration. Default returns the value of each field that is not set.
type Config struct {
	Listen Listen `yaml:"listen" envPrefix:"LISTEN_"`
	TLS    TLS    `yaml:"tls" envPrefix:"TLS_"`
	Policy Policy `yaml:"policy" envPrefix:"POLICY_"`
	// DataDir is the folder of the file of the store bolt, the admin token and the last good policy. It is made if it does not exist.
	DataDir string `yaml:"data_dir" env:"DATA_DIR"`
	// Store is where keys, revocations and quotas are stored: bolt (a file in data_dir, with a write-ahead log), memory (lost at
	// exit), or postgres, whose fields are below (store: {postgres: {url_file: FILE}}; as a variable, TOLLKEEPER_STORE=postgres).
	Store       Store       `yaml:"store" env:"STORE" envPrefix:"STORE_"`
	Request     Request     `yaml:"request" envPrefix:"REQUEST_"`
	Credentials Credentials `yaml:"credentials" envPrefix:"CREDENTIALS_"`
	Keys        Keys        `yaml:"keys" envPrefix:"KEYS_"`
	Tokens      Tokens      `yaml:"tokens" envPrefix:"TOKENS_"`
	Answers     Answers     `yaml:"answers" envPrefix:"ANSWERS_"`
	Revocation  Revocation  `yaml:"revocation" envPrefix:"REVOCATION_"`
	Log         Log         `yaml:"log" envPrefix:"LOG_"`
	Shutdown    Shutdown    `yaml:"shutdown" envPrefix:"SHUTDOWN_"`
}

// Policy says which policies decide, and how they are loaded.
type Policy struct {
	// Paths are files and folders of Rego, JSON and YAML. Empty: the policies that are built into the binary.
	Paths []string `yaml:"paths" env:"PATHS"`
	// Query is the path of the rule that decides.
	Query string `yaml:"query" env:"QUERY"`
	// Profile selects the HTTP statuses of the shipped policies: strict, article or rfc. Empty: the profile that the data of
	// the policies names (tollkeeper.profile), strict if it names none.
	Profile string `yaml:"profile" env:"PROFILE"`
	// RegoVersion is the version of Rego of the files at paths: v1, or v0 for rules from before OPA 1.0, without "if" and
	// "contains". Files in v1 may stand beside files in v0. Empty: v1.
	RegoVersion string `yaml:"rego_version" env:"REGO_VERSION"`
	// StrictErrors denies with policy_error if a function of Rego fails, such as to_number of a text. If it is off, the
	// failed expression is undefined, as in OPA: "deny if not f(x) < 5" denies then and "deny if f(x) > 5" does not. Errors
	// are counted and logged in both cases. Not set: on where the shipped rules decide, off otherwise.
	StrictErrors *bool `yaml:"strict_errors" env:"STRICT_ERRORS"`
	// AllowRemovedPlans lets a reload or a start remove plans, limits and reasons that accounts or keys use.
	// Customers on a removed plan are denied with policy_error. If it is off, such policies are refused.
	AllowRemovedPlans bool `yaml:"allow_removed_plans" env:"ALLOW_REMOVED_PLANS"`
	// Memo is how many verdicts are cached, in at most 64 MiB of memory. A cached verdict is used for requests that agree in
	// everything that the policy reads. 0: none is cached.
	Memo int `yaml:"memo" env:"MEMO"`
	// Evaluator is what decides: compiled (a program that the rules are compiled to, and OPA's evaluator where that is not possible) or
	// opa (OPA's evaluator, which takes about ten times as long).
	Evaluator string `yaml:"evaluator" env:"EVALUATOR"`
	// Recheck is how many decisions of the compiled program there are for each one that OPA's evaluator repeats, chosen at random. If
	// they disagree, the request is denied with policy_error, and OPA's evaluator decides from then on. 1: every one is repeated. 0:
	// none is.
	Recheck int `yaml:"recheck" env:"RECHECK"`
	// ReloadInterval is the time between two looks at paths for changed files. 0: they are read again on SIGHUP only.
	ReloadInterval Duration `yaml:"reload_interval" env:"RELOAD_INTERVAL"`
}

// Request says how requests are read and decided.
type Request struct {
	// Timeout bounds the time of one decision. Envoy's own deadline applies if it is earlier.
	Timeout Duration `yaml:"timeout" env:"TIMEOUT"`
	// DryRun lets through what the policy denies. Requests that cannot be understood or decided are still denied, also if
	// the policy itself says so: policy_error, store_unavailable, state_stale, decision_timeout, token_status_unknown.
	DryRun bool `yaml:"dry_run" env:"DRY_RUN"`
	// SkipBodyParse leaves request bodies unparsed: the policy sees no parsed_body.
	SkipBodyParse bool `yaml:"skip_body_parse" env:"SKIP_BODY_PARSE"`
	// ProtoDescriptor is a file with a FileDescriptorSet, by which bodies of gRPC requests are decoded. Empty: they are not
	// decoded.
	ProtoDescriptor string `yaml:"proto_descriptor" env:"PROTO_DESCRIPTOR"`
}

// Credentials says where in a request the API key may be.
type Credentials struct {
	// Headers are the names of headers that may hold the key. For Authorization set bearer instead.
	Headers []string `yaml:"headers" env:"HEADERS"`
	// Bearer accepts the key as Authorization: Bearer.
	Bearer bool `yaml:"bearer" env:"BEARER"`
	// Query are the names of query parameters that may hold the key. Empty: none, because query strings end up in logs.
	// Envoy must allow :path to be changed, or the key cannot be removed before the upstream sees it.
	Query []string `yaml:"query" env:"QUERY"`
	// Cookies are the names of cookies that may hold the key. Empty: none.
	Cookies []string `yaml:"cookies" env:"COOKIES"`
	// Keep leaves the key in the request that goes to the upstream.
	Keep bool `yaml:"keep" env:"KEEP"`
}

// Keys says how keys are stored.
type Keys struct {
	// PepperFile is a file with a secret of at least 16 bytes that is mixed into the digests of all keys. It must be set
	// before the first key is made and must never change, or no key is found. Empty: no pepper.
	PepperFile string `yaml:"pepper_file" env:"PEPPER_FILE"`
}

// Answers says what callers, your service and Envoy's access log are told.
type Answers struct {
	// Realm is the realm in WWW-Authenticate.
	Realm string `yaml:"realm" env:"REALM"`
	// ProblemBase is a URL. With the code of the reason appended it is the type of a problem document (RFC 9457).
	ProblemBase string `yaml:"problem_base" env:"PROBLEM_BASE"`
	// BillingURL is where a caller who is denied with 402 can pay, sent as Link header. Empty: no link is sent.
	BillingURL string `yaml:"billing_url" env:"BILLING_URL"`
	// Identity are the headers that tell your service who is calling, without x-tollkeeper- before them. Those that are not listed
	// are removed from requests. Each one costs Envoy about 1 % of a check.
	Identity []string `yaml:"identity" env:"IDENTITY"`
	// Metadata is what Envoy's access log can read about an allowed request, as dynamic metadata: decision_id, reason (of the denial
	// that a dry run let pass), key_id, account, plan, route, issuer, token_id, subject and rid (the reservation). Each one costs
	// Envoy about 1 % of a check. Metadata of the policy, and all of this about a denial, is always sent.
	Metadata []string `yaml:"metadata" env:"METADATA"`
}

// Revocation says how old the list of revocations may be, and which programs may add to it.
type Revocation struct {
	// MaxStaleness is the age at which the list is stale. The shipped policies deny with state_stale then.
	MaxStaleness Duration `yaml:"max_staleness" env:"MAX_STALENESS"`
	// Clients are the programs that may revoke tokens at listen.events by RFC 7009. Empty: none may.
	Clients []Client `yaml:"clients" envPrefix:"CLIENTS_"`
	// EventAuthorizationFile is a file with the value that the Authorization header of a pushed security event must have.
	// The signature of the event is always checked. Empty: it alone is checked.
	EventAuthorizationFile string `yaml:"event_authorization_file" env:"EVENT_AUTHORIZATION_FILE"`
}

// Client is a program that proves its identity with a secret.
type Client struct {
	// ID is its client id.
	ID string `yaml:"id" env:"ID"`
	// SecretFile is a file with its client secret.
	SecretFile string `yaml:"secret_file" env:"SECRET_FILE"`
}

// Log says what is logged.
type Log struct {
	// Level is the lowest level that is logged: debug, info, warn or error.
	Level string `yaml:"level" env:"LEVEL"`
	// Decisions is where decisions are written, as one JSON object a line: stdout, stderr, off or the path of a file. If the
	// file is moved or removed, a new one is made with the next decision or on SIGHUP, as logrotate expects.
	Decisions string `yaml:"decisions" env:"DECISIONS"`
}

// Shutdown says how the server ends.
type Shutdown struct {
	// Delay is how long the server still answers after SIGTERM, while health says NOT_SERVING: the time that Envoys need to
	// notice and to ask other replicas.
	Delay Duration `yaml:"delay" env:"DELAY"`
}

// Duration is a time such as 250ms or 1m30s.
type Duration struct {
	time.Duration
	fault string // the text, if it is not a duration: validate reports it with its place
}

// UnmarshalText reads a duration. It returns no error: validate does.
func (d *Duration) UnmarshalText(text []byte) error {
	v, err := time.ParseDuration(string(text))
	if *d = (Duration{Duration: v}); err != nil {
		d.fault = string(text)
	}
	return nil
}

func defaultPolicy() Policy {
	return Policy{
		Query: "envoy/authz/allow", Memo: 20_000, Evaluator: "compiled", Recheck: 1000, ReloadInterval: Duration{Duration: 500 * time.Millisecond},
	}
}

// Default returns the configuration that applies without a file and without variables.
func Default() Config {
	return Config{
		Listen:      defaultListen(),
		Policy:      defaultPolicy(),
		DataDir:     "./data",
		Store:       defaultStore(),
		Request:     Request{Timeout: Duration{Duration: 250 * time.Millisecond}},
		Credentials: Credentials{Headers: []string{"x-api-key"}, Bearer: true},
		Answers: Answers{
			Realm: "api", ProblemBase: "https://github.com/tollkeeper-authz/tollkeeper/blob/main/policies/README.md#",
			Identity: slices.Clone(identityNames), Metadata: []string{"reason", "route"},
		},
		Tokens:     defaultTokens(),
		Revocation: Revocation{MaxStaleness: Duration{Duration: 30 * time.Second}},
		Log:        Log{Level: "info", Decisions: "stdout"},
		Shutdown:   Shutdown{Delay: Duration{Duration: time.Second}},
	}
}
