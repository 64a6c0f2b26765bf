package tollkeeper.custom

deny[msg] {
	input.key.meta.role == "intern"
	msg := "Interns only read."
}
