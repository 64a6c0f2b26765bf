package admin

import (
	"encoding/json"
	"errors"
	"time"

	"github.com/tollkeeper-authz/tollkeeper/authz/decisionlog"
	"github.com/tollkeeper-authz/tollkeeper/authz/quota"
)

// The types of this file are the JSON of the admin API.

// Account is an account as the API shows it.
type Account struct {
	ID        string         `json:"id"`
	Name      string         `json:"name,omitempty"`
	Plan      string         `json:"plan,omitempty"`
	Status    string         `json:"status" enum:"active,suspended,overdue"`
	Meta      map[string]any `json:"meta,omitempty"`
	CreatedAt time.Time      `json:"created_at"`
	UpdatedAt time.Time      `json:"updated_at"`
	// RevokedBefore is set if the account was revoked: keys made until then are revoked.
	RevokedBefore time.Time `json:"revoked_before,omitzero"`
	Version       uint64    `json:"version"`
}

// AccountCreate makes an account.
type AccountCreate struct {
	ID   string         `json:"id" doc:"Chosen by you; it goes into headers and logs."`
	Name string         `json:"name,omitempty"`
	Plan string         `json:"plan,omitempty" doc:"The plan of the account's keys that have none of their own."`
	Meta map[string]any `json:"meta,omitempty"`
}

// AccountUpdate changes an account. Fields that are absent stay as they are.
type AccountUpdate struct {
	Name   *string   `json:"name,omitempty"`
	Plan   *string   `json:"plan,omitempty"`
	Status *string   `json:"status,omitempty" enum:"active,suspended,overdue"`
	Meta   MetaPatch `json:"meta,omitempty" doc:"A merge patch (RFC 7396): null takes a name away, names that are absent stay."`
}

// MetaPatch is a merge patch (RFC 7396) of meta.
type MetaPatch map[string]any

// UnmarshalJSON refuses null, which could mean that the field is absent or that all of meta is removed.
func (p *MetaPatch) UnmarshalJSON(raw []byte) error {
	if string(raw) == "null" {
		return errors.New("meta: null is not taken: set each name to null that is to go")
	}
	return json.Unmarshal(raw, (*map[string]any)(p))
}

// Key is a key as the API shows it.
type Key struct {
	ID string `json:"id"`
	// Key is the text of a key that was just made. It is never shown again.
	Key         string `json:"key,omitempty"`
	Name        string `json:"name,omitempty"`
	Account     string `json:"account"`
	Plan        string `json:"plan,omitempty"`
	Environment string `json:"environment,omitempty"`
	Status      string `json:"status" enum:"active,not_yet_valid,expired,disabled,rotated,revoked"`
	// AccountStatus is set if the account keeps the key from working, whatever the status of the key is.
	AccountStatus string         `json:"account_status,omitempty" enum:"suspended,overdue"`
	Scopes        []string       `json:"scopes,omitempty"`
	NotBefore     time.Time      `json:"not_before,omitzero"`
	ExpiresAt     time.Time      `json:"expires_at,omitzero"`
	Meta          map[string]any `json:"meta,omitempty"`
	Lineage       string         `json:"lineage"`
	Successor     string         `json:"successor,omitempty"`
	OverlapEnds   time.Time      `json:"overlap_ends,omitzero"`
	CreatedAt     time.Time      `json:"created_at"`
	UpdatedAt     time.Time      `json:"updated_at"`
	Version       uint64         `json:"version"`
}

// KeyCreate makes a key.
type KeyCreate struct {
	Account     string         `json:"account"`
	Name        string         `json:"name,omitempty"`
	Plan        string         `json:"plan,omitempty" doc:"Absent: the account's plan."`
	Environment string         `json:"environment,omitempty" doc:"Absent: live."`
	Scopes      []string       `json:"scopes,omitempty"`
	NotBefore   time.Time      `json:"not_before,omitzero"`
	ExpiresAt   time.Time      `json:"expires_at,omitzero"`
	Meta        map[string]any `json:"meta,omitempty"`
	Force       bool           `json:"force,omitempty" doc:"Also if the key has expired already."`
}

// KeyUpdate changes a key. Fields that are absent stay as they are.
type KeyUpdate struct {
	Name      *string    `json:"name,omitempty"`
	Plan      *string    `json:"plan,omitempty"`
	Scopes    *[]string  `json:"scopes,omitempty"`
	Disabled  *bool      `json:"disabled,omitempty"`
	ExpiresAt *time.Time `json:"expires_at,omitempty"`
	Meta      MetaPatch  `json:"meta,omitempty" doc:"A merge patch (RFC 7396): null takes a name away, names that are absent stay."`
	Force     bool       `json:"force,omitempty" doc:"Also if the key has expired by then."`
}

// Rotation is both keys of a rotation.
type Rotation struct {
	Old       Key `json:"old"`
	Successor Key `json:"successor"`
}

// Revoked acknowledges a revocation.
type Revoked struct {
	Kind     string    `json:"kind"`
	ID       string    `json:"id"`
	At       time.Time `json:"at"`
	Revision uint64    `json:"revision"`
}

// ImportKey is one key of an import.
type ImportKey struct {
	SHA256      string         `json:"sha256" doc:"SHA-256 of the key's text, in hexadecimal."`
	Account     string         `json:"account"`
	Plan        string         `json:"plan,omitempty"`
	Name        string         `json:"name,omitempty"`
	Scopes      []string       `json:"scopes,omitempty"`
	Environment string         `json:"environment,omitempty"`
	NotBefore   time.Time      `json:"not_before,omitzero"`
	ExpiresAt   time.Time      `json:"expires_at,omitzero"`
	Meta        map[string]any `json:"meta,omitempty"`
}

// ImportResult says what an import did. If there are faults, nothing was imported.
type ImportResult struct {
	Created   int           `json:"created"`
	Unchanged int           `json:"unchanged"`
	Accounts  int           `json:"accounts"`
	Faults    []ImportFault `json:"faults,omitempty"`
}

// ImportFault is a fault of one key of an import.
type ImportFault struct {
	Index int    `json:"index"` // in the batch, from 0
	Text  string `json:"text"`
}

// Quota is the state of one limit.
type Quota struct {
	Limit       string                 `json:"limit"`
	Per         string                 `json:"per"`
	Holder      string                 `json:"holder"`
	Window      string                 `json:"window"`
	Unit        string                 `json:"unit"`
	Allowance   int64                  `json:"allowance"`
	Spent       int64                  `json:"spent"`
	Remaining   int64                  `json:"remaining"`
	Outstanding map[quota.NodeID]int64 `json:"outstanding,omitempty" doc:"Leased to nodes and not yet spent; part of what remains."`
	Stranded    int64                  `json:"stranded,omitempty" doc:"Leased to nodes that died; charged until the period ends, and if they are prepaid until they are released."`
	Overage     int64                  `json:"excess,omitempty"`
	ResetsAt    time.Time              `json:"resets_at,omitzero"`
}

// QuotaHolder names the holder of quotas: a key, an account, or a subject or client of a token issuer on an account.
type QuotaHolder struct {
	Key     string `json:"key,omitempty" doc:"The id of a key; or give an account."`
	Account string `json:"account,omitempty"`
	Plan    string `json:"plan,omitempty" doc:"The plan that tokens name, where it is not the account's."`
	Issuer  string `json:"issuer,omitempty" doc:"The issuer of the tokens of a subject or a client."`
	Subject string `json:"subject,omitempty"`
	Client  string `json:"client,omitempty" doc:"The client of tokens that name no subject."`
}

// QuotaChange credits or resets a limit.
type QuotaChange struct {
	QuotaHolder
	Limit string `json:"limit"`
	Units int64  `json:"units,omitempty" doc:"To credit. Not for a reset."`
	ID    string `json:"id,omitempty" doc:"Idempotency key: the same id twice is one change."`
	Note  string `json:"note,omitempty"`
}

// Stranded is units of a prepaid limit that a node held when it died. It may have spent them without reporting it.
type Stranded struct {
	Account  string       `json:"account,omitempty" doc:"Absent if the key is gone that held them."`
	Per      string       `json:"per" enum:"key,account"`
	Holder   string       `json:"holder" doc:"The account, the first key of a chain of rotations, or the subject or client of tokens."`
	Limit    string       `json:"limit"`
	Unit     string       `json:"unit"`
	Node     quota.NodeID `json:"node" doc:"The server that died: as rid begins in the decision log."`
	Units    int64        `json:"units"`
	Reported int64        `json:"reported" doc:"What the node had reported as spent: it was granted units and reported, and nothing else."`
}

// QuotaRelease decides on what is stranded.
type QuotaRelease struct {
	Stranded
	Back int64 `json:"back" minimum:"0" doc:"How many of the units come back. The others count as spent."`
}

// Question describes a request to be explained.
type Question struct {
	// CheckRequest is the request as Envoy would send it, in protobuf's JSON.
	CheckRequest json.RawMessage `json:"check_request"`
	// Method, Path and Host replace those in CheckRequest, byte for byte.
	Method []byte `json:"method,omitempty"`
	Path   []byte `json:"path,omitempty"`
	Host   []byte `json:"host,omitempty"`
	// Key is the text or the id of the key that the request carries.
	Key string `json:"key,omitempty"`
	// Account is the account whose first working key the request carries.
	Account string `json:"account,omitempty"`
	// Profile asks what the evaluation of the policy takes.
	Profile bool `json:"profile,omitempty"`
}

// Route says which route applied to a request. Its other fields are those of the route, and absent if none applied.
type Route struct {
	State       string            `json:"state" enum:"ok,none,missing" doc:"none: no route names the request. missing: Envoy names a route that does not exist."`
	Name        string            `json:"name,omitempty"`
	Template    string            `json:"template,omitempty" doc:"The pattern of the path. Absent if only Envoy chooses the route, by its name."`
	Params      map[string]string `json:"params,omitempty" doc:"What the names in the template stand for, decoded."`
	Methods     []string          `json:"methods,omitempty" doc:"Absent: all."`
	Hosts       []string          `json:"hosts,omitempty" doc:"Absent: all."`
	Public      bool              `json:"public,omitempty"`
	Scopes      []string          `json:"scopes,omitempty"`
	Plans       []string          `json:"plans,omitempty" doc:"Absent: any plan will do."`
	Environment string            `json:"environment,omitempty"`
	Key         string            `json:"key,omitempty" enum:"required"`
	Token       string            `json:"token,omitempty" enum:"required"`
	Charge      map[string]int64  `json:"charge,omitzero" doc:"The price. Absent: one unit of each limit that counts requests."`
}

// Reading says how the path of a request was read.
type Reading struct {
	State   string `json:"state" enum:"ok,malformed,ambiguous" doc:"malformed: servers read a part of it in different ways. ambiguous: another reading of the request leads to another route."`
	Fault   string `json:"fault,omitempty"`
	Meaning string `json:"meaning,omitempty" doc:"What the fault means, and the setting that accepts such paths if there is one."`
}

// Explanation says how a request would be decided, and why.
type Explanation struct {
	Allowed bool   `json:"allowed"`
	Status  int    `json:"status,omitempty"`
	Reason  string `json:"reason,omitempty"`
	Title   string `json:"title,omitempty"`
	Remedy  string `json:"remedy,omitempty"`
	Detail  string `json:"detail,omitempty"`
	Cause   string `json:"cause,omitempty"`
	// PolicyErrors are the functions of the policy that failed, as file:line: text.
	PolicyErrors []string         `json:"policy_errors,omitempty"`
	Fact         string           `json:"fact,omitempty"`
	Rule         *Rule            `json:"rule,omitempty"`
	Path         *Reading         `json:"path,omitempty" doc:"Absent if the request could not be read."`
	Route        *Route           `json:"route,omitempty" doc:"Absent if the request could not be read."`
	Charge       map[string]int64 `json:"charge,omitempty"`
	Policy       string           `json:"policy"`
	Evaluator    string           `json:"evaluator,omitempty" doc:"What decides: compiled, or OPA's evaluator and why. The trace of rules always comes from OPA's evaluator."`
	Key          json.RawMessage  `json:"key,omitempty"`
	Token        json.RawMessage  `json:"token,omitempty"`
	Account      json.RawMessage  `json:"account,omitempty"`
	Quota        []QuotaState     `json:"quota,omitempty"`
	Rules        []Rule           `json:"rules,omitempty"`
	Headers      []Header         `json:"headers,omitempty"`
	Body         string           `json:"body,omitempty"`
	Decision     string           `json:"decision_id"`
	Profile      *Profile         `json:"profile,omitempty" doc:"Only if it was asked for. Absent if the request could not be read."`
}

// Profile tells what it takes to evaluate the policy for a request, without the cache of verdicts. Numbers are means of one evaluation, in
// the quickest of several rounds.
type Profile struct {
	Evaluations int        `json:"evaluations" doc:"How many were timed."`
	Once        string     `json:"once,omitempty" doc:"Why only one was timed."`
	TimeNS      int64      `json:"time_ns" doc:"From the request to the verdict."`
	InputNS     int64      `json:"input_ns" doc:"The part of time_ns in which the request becomes the input."`
	Rules       []Profiled `json:"rules,omitempty" doc:"Of a compiled program. The longest comes first."`
	Functions   []Profiled `json:"functions,omitempty" doc:"The builtin functions that the rules of a compiled program called."`
	Lines       []Profiled `json:"lines,omitempty" doc:"The lines that OPA's evaluator evaluated. Their times include the measuring."`
	Hints       []string   `json:"hints,omitempty" doc:"What is slow, and why."`
	Error       string     `json:"error,omitempty" doc:"Why there is no verdict."`
}

// Profiled tells about the calls of the rules of one name, of a builtin function, or of a line.
type Profiled struct {
	Name      string  `json:"name"`
	File      string  `json:"file,omitempty" doc:"Of the first rule."`
	Line      int     `json:"line,omitempty"`
	Calls     int     `json:"calls"`
	Evaluated int     `json:"evaluated" doc:"The calls that were evaluated: a rule has one value in a decision."`
	OwnNS     int64   `json:"own_ns" doc:"Without the rules and functions that it called."`
	TotalNS   int64   `json:"total_ns,omitempty" doc:"With them. Absent for lines."`
	Share     float64 `json:"share" doc:"Of the evaluation, that own_ns is: from 0 to 1."`
}

// Decision is a recent decision, in the form of the decision log.
type Decision = decisionlog.Line

// Rule is a rule that took part in a decision.
type Rule struct {
	Name  string `json:"name"`
	File  string `json:"file"`
	Line  int    `json:"line"`
	Text  string `json:"text,omitempty"`
	Held  bool   `json:"held"`
	Facts []Fact `json:"facts,omitempty"`
}

// Fact is one part of the input that a rule reads.
type Fact struct {
	Ref   string `json:"ref"`
	Value string `json:"value"`
}

// Header is a header field of an answer.
type Header struct {
	Name  string `json:"name"`
	Value string `json:"value"`
}

// QuotaState is a quota as the policy saw it.
type QuotaState struct {
	Name      string    `json:"name"`
	State     string    `json:"state"`
	Limit     int64     `json:"limit"`
	Remaining int64     `json:"remaining"`
	ResetsAt  time.Time `json:"resets_at,omitzero"`
}

// PlanLimit is one limit of a plan.
type PlanLimit struct {
	Name   string `json:"name"`
	Units  int64  `json:"units"`
	Unit   string `json:"unit"`
	Window string `json:"window"`
	Per    string `json:"per"`
}

// PlanUse is a plan and who is on it. Requests of callers on a plan that is not defined are denied.
type PlanUse struct {
	Name       string      `json:"name"`
	Defined    bool        `json:"defined"`
	Limits     []PlanLimit `json:"limits,omitempty"`
	Accounts   int         `json:"accounts"`
	AccountIDs []string    `json:"account_ids,omitempty" doc:"The first few."`
	Keys       int         `json:"keys" doc:"Keys with this plan as their own that are not revoked, replaced or expired."`
	KeyIDs     []string    `json:"key_ids,omitempty" doc:"The first few."`
	Tokens     bool        `json:"tokens,omitempty" doc:"Tokens have named the plan since the server started."`
}

// Plans is what new policies must not lack while it is used.
type Plans struct {
	Plans   []PlanUse `json:"plans"`
	Reasons []string  `json:"reasons" doc:"The codes in the policies' own table of reasons."`
}

// Status is the state of the server.
type Status struct {
	Address     string `json:"address" doc:"Where operators reach it."`
	DataDir     string `json:"data_dir"`
	Version     string `json:"version"`
	Policy      string `json:"policy"`
	Evaluator   string `json:"evaluator" doc:"What decides: compiled, or OPA's evaluator and why."`
	PolicyFault string `json:"policy_fault,omitempty" doc:"Why the policies on disk were not loaded."`
	ClockFault  string `json:"clock_fault,omitempty" doc:"Why quotas do not count by the clock of the machine."`
	// PruningPaused is set while the clock may be wrong, which takes longer to rule out than for quotas.
	PruningPaused string   `json:"pruning_paused,omitempty" doc:"Why expired revocations are kept: the clock may be wrong."`
	Plans         []string `json:"plans"`
	Routes        int      `json:"routes" doc:"How many there are in the table."`
	Node          string   `json:"node"`
	Revocations   int      `json:"revocations"`

	// PolicyKept is when the policy in force was saved, if the server started with policies that it could not use.
	PolicyKept time.Time `json:"policy_kept,omitzero"`
	// MissingPlans describe plans that accounts and keys are on and that do not exist.
	MissingPlans []string `json:"missing_plans,omitempty"`
}
