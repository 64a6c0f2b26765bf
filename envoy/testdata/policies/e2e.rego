# An operator's own rules: some that deny, one with an error, and one that takes too long.
package tollkeeper.custom

path := input.parsed_path

deny contains {"detail": "Closed on Sundays."} if path == ["closed"]

deny contains {"reason": "teapot_busy", "detail": "Short and stout."} if path == ["teapot"]

# Two values for one rule: the evaluation ends with an error.
contradiction := 1 if path == ["boom"]

contradiction := 2 if path == ["boom"]

deny contains {"reason": "never_given"} if contradiction == 3

deny contains {"reason": "never_given"} if {
	path == ["slow"]
	some i in numbers.range(1, 100000)
	some j in numbers.range(1, 100000)
	i * j == -1
}
