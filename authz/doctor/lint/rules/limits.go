package rules

import (
	"time"

	"github.com/tollkeeper-authz/tollkeeper/authz/doctor/lint/model"
	"github.com/tollkeeper-authz/tollkeeper/authz/doctor/lint/rule"
)

// This file has the rules that compare limits of Envoy with limits of Tollkeeper.

var slowConnect = rule.Rule{
	ID: "TK146", Severity: rule.Warning, Since: since, Title: "Connecting may take longer than a check.",
	Why:    "One host that does not answer uses up the time of every check that is sent to it.",
	Remedy: "Set connect_timeout well below the timeout of the check, such as 0.1s.",
	Checks: []rule.Check{func(in *model.Model, report rule.Report) {
		for _, l := range in.Limits() {
			c, wait := l.Check, patience(l.Check)
			if wait > 0 && l.Connect.Value >= wait || wait == 0 && c.Way != model.ByFilter {
				report(rule.At(l.Connect.Location, "connecting may take %v and a check only %v: a host that does not answer makes checks fail", l.Connect.Value, wait).
					FixedBy(set(c, c.Fields.Connect, "100ms")))
			}
		}
		for _, c := range in.ChecksBy(model.ByProvider) {
			if in.Objects.DestinationRule(c.Host()) == nil {
				report(rule.At(c.At("service"), "no DestinationRule for %s is in the files: connecting may take 10s, and a check only %v", c.Host(), patience(c)).
					As(rule.Info).FixedBy("Set " + c.Fields.Connect + ": 100ms in a DestinationRule for the service."))
			}
		}
	}},
}

// patience is how long a check may take, to compare with the time for connecting. It is 0 for a filter without a timeout, which
// another rule reports. For a provider without a timeout it is the longest good timeout.
func patience(c *model.ExtAuthz) time.Duration {
	switch {
	case c.Way == model.ByFilter && !c.Timeout.Exists():
		return 0
	case c.Way == model.ByProvider && c.Timeout.Value == model.IstioTimeout:
		return maxCheck
	}
	return max(c.Timeout.Value, 0)
}

var lowLimit = rule.Rule{
	ID: "TK147", Severity: rule.Warning, Since: since, Title: "The limit on concurrent checks is low.",
	Why:    "Checks above the limit fail at once, so a burst of requests causes an outage.",
	Remedy: "Set max_requests and max_pending_requests in circuit_breakers to more than you will ever need, such as 8192.",
	Checks: each((*model.Model).Limits, func(_ *model.Model, l model.Limits, report rule.Report) {
		if l.Requests.Value <= model.MaxRequests {
			report(rule.At(l.Requests.Location, "more than %d concurrent checks are refused, so the first burst causes an outage", l.Requests.Value).
				FixedBy(set(l.Check, l.Check.Fields.Breaker, "10000")))
		}
	}),
}

var envoyImpatient = rule.Rule{
	ID: "TK242", Severity: rule.Warning, Since: since, Title: "Envoy stops waiting before Tollkeeper has to answer.",
	Why:    "Slow checks become errors without a reason.",
	Remedy: "Set Envoy's timeout for checks above request.timeout.",
	Checks: []rule.Check{func(in *model.Model, report rule.Report) {
		for _, o := range in.Own {
			own := o.Config.Request.Timeout.Duration
			for _, c := range in.ChecksBy(whole...) {
				if wait := c.Timeout.Value; wait > 0 && wait <= own {
					report(rule.At(c.Timeout.Location, "Envoy waits %v for a check and Tollkeeper takes up to %v: callers get an error without a reason in place of decision_timeout", wait, own))
				}
			}
		}
	}},
}
