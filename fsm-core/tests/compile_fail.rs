//! What does not compile, and what the compiler says.

#[test]
fn mistakes_in_a_graph_do_not_compile() {
    let cases = trybuild::TestCases::new();
    cases.compile_fail("tests/compile_fail/*.rs");
}
