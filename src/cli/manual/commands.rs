//! warrend(1) and a page for each command, from the definition of the command line.

use clap::{Command, CommandFactory as _};
use clap_mangen::Man;

use super::page::Page;
use super::prose;
use crate::cli::{Cli, Exit};

/// The main page, then the commands in the order of the help, each before those below it.
pub fn pages() -> Vec<Page> {
    // A page that only repeats the others is none.
    let mut cli = in_words(Cli::command().disable_help_subcommand(true));
    cli.build();
    let mut commands = Vec::new();
    collect(&cli, &mut commands);
    let names: Vec<String> = commands.iter().map(|command| name(command)).collect();
    commands
        .iter()
        .map(|command| if command.get_name() == cli.get_name() { main(command, &names) } else { one(command) })
        .collect()
}

/// What a value can be, in the words of its help: a list of its own would take half a page.
fn in_words(command: Command) -> Command {
    let command = command.mut_args(|arg| {
        let values: Vec<String> = arg.get_possible_values().iter().map(|value| value.get_name().to_owned()).collect();
        match arg.get_help().map(ToString::to_string) {
            Some(help) if !values.is_empty() && arg.get_action().takes_values() => {
                arg.help(format!("{help}: {}", values.join(", "))).hide_possible_values(true)
            }
            Some(_) | None => arg,
        }
    });
    command.mut_subcommands(in_words)
}

fn collect<'a>(command: &'a Command, commands: &mut Vec<&'a Command>) {
    commands.push(command);
    for below in command.get_subcommands().filter(|below| !below.is_hide_set()) {
        collect(below, commands);
    }
}

/// `warrend-dead-replay`
fn name(command: &Command) -> String {
    command.get_display_name().unwrap_or_else(|| command.get_name()).to_owned()
}

fn rendered(render: impl FnOnce(&mut Vec<u8>) -> std::io::Result<()>) -> String {
    let mut text = Vec::new();
    render(&mut text).expect("a vector takes all that is written");
    String::from_utf8(text).expect("clap's texts are UTF-8")
}

/// What every page begins with.
fn head(command: &Command) -> (Page, Man) {
    let mut page = Page::new(&name(command), "1");
    page.heading("NAME").text(&format!("{} - {}", name(command), lower(&about(command))));
    let usage = command.clone().render_usage().to_string();
    let usage = usage.strip_prefix("Usage: ").unwrap_or(&usage);
    let name_ends = usage.find(['[', '<']).unwrap_or(usage.len());
    page.heading("SYNOPSIS").text(&format!("`{}` {}", usage[..name_ends].trim_end(), &usage[name_ends..]));
    (page, Man::new(command.clone()))
}

fn main(command: &Command, names: &[String]) -> Page {
    let (mut page, man) = head(command);
    page.heading("DESCRIPTION");
    for text in prose::DESCRIPTION {
        page.paragraph(text);
    }
    page.heading("COMMANDS");
    for below in command.get_subcommands().filter(|below| !below.is_hide_set()) {
        listed(&mut page, below);
    }
    page.part(rendered(|out| man.render_options_section(out)));
    page.heading("HANDLERS");
    for text in prose::HANDLERS {
        page.paragraph(text);
    }
    items(&mut page, &prose::HANDLER_EXITS);
    page.paragraph(prose::HANDLER_ENVIRONMENT_HEAD);
    items(&mut page, &prose::HANDLER_ENVIRONMENT);
    page.heading("EXIT STATUS");
    for exit in Exit::ALL {
        page.item(&format!("`{}`", exit as u8), prose::exit(exit));
    }
    page.heading("ENVIRONMENT");
    items(&mut page, &prose::ENVIRONMENT);
    page.heading("FILES");
    items(&mut page, &prose::FILES);
    page.heading("SIGNALS");
    items(&mut page, &prose::SIGNALS);
    page.heading("SYSTEMD");
    for text in prose::SYSTEMD {
        page.paragraph(text);
    }
    page.heading("EXAMPLES");
    for (text, lines) in prose::EXAMPLES {
        page.paragraph(text).example(lines);
    }
    let others = names.iter().filter(|name| **name != page.name).map(|name| format!("`{name}`(1)"));
    let all: Vec<String> = std::iter::once("`warrend.toml`(5)".to_owned())
        .chain(others)
        .chain(["`systemd.service`(5), `rabbitmqctl`(8)".to_owned()])
        .collect();
    page.heading("SEE ALSO").paragraph(&all.join(", "));
    page
}

fn one(command: &Command) -> Page {
    let (mut page, man) = head(command);
    page.heading("DESCRIPTION");
    let text = command.get_long_about().map_or_else(|| about(command), ToString::to_string);
    let mut paragraphs = text.split("\n\n");
    page.paragraph(&sentence(paragraphs.next().unwrap_or_default()));
    for paragraph in paragraphs {
        page.paragraph(paragraph);
    }
    page.part(rendered(|out| man.render_options_section(out)));
    let below: Vec<&Command> = command.get_subcommands().filter(|below| !below.is_hide_set()).collect();
    if !below.is_empty() {
        page.heading("COMMANDS");
    }
    for command in below {
        listed(&mut page, command);
    }
    page.heading("EXIT STATUS").paragraph(prose::EXIT_ELSEWHERE);
    page.heading("SEE ALSO").paragraph("`warrend`(1), `warrend.toml`(5)");
    page
}

fn about(command: &Command) -> String {
    command.get_about().map(ToString::to_string).unwrap_or_default()
}

/// A command in the list of another.
fn listed(page: &mut Page, command: &Command) {
    page.item(
        &format!("`{}`", command.get_name()),
        &format!("{} See `{}`(1).", sentence(&about(command)), name(command)),
    );
}

/// Clap takes the full stop from the end.
fn sentence(text: &str) -> String {
    let text = text.trim().replace('\n', " ");
    if text.ends_with(['.', ':']) { text } else { format!("{text}.") }
}

fn lower(text: &str) -> String {
    let mut chars = text.chars();
    chars.next().map_or_else(String::new, |first| first.to_lowercase().chain(chars).collect())
}

fn items(page: &mut Page, items: &[(&str, &str)]) {
    for (term, text) in items {
        page.item(&format!("`{term}`"), text);
    }
}
