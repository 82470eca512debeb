# RywBrowser.pm
#	  A real browser: Chromium, driven through chromedriver by the WebDriver
#	  protocol, which is JSON over HTTP.
#
# Pages are not waited for by the driver, but here: click() returns at once, so
# that a test can see what holds a page up, and loaded() says that another page
# than the one clicked on is there.

package RywBrowser;

use strict;
use warnings;

use Carp;
use HTTP::Tiny;
use IPC::Run ();
use JSON::PP ();
use MIME::Base64 qw(decode_base64);
use PostgreSQL::Test::Utils;
use RywTest;

my $json = JSON::PP->new->utf8->allow_nonref;
my ($driver, $address, @open);

# The names that Debian and others give them.
sub program
{
	foreach my $name (@_)
	{
		foreach my $folder (split(/:/, $ENV{PATH}), '/usr/lib/chromium')
		{
			return "$folder/$name" if -x "$folder/$name" && !-d _;
		}
	}
	return;
}

# Why there is no browser here; undefined where there is one.
sub missing
{
	return 'chromium is not installed' unless program('chromium', 'chromium-browser');
	return 'chromedriver (Debian: chromium-driver) is not installed'
	  unless program('chromedriver');
	return;
}

# Starts the driver.  All that it and the browsers write goes into a folder with a
# short path: a socket of theirs is in it.
sub start_driver
{
	my $folder = PostgreSQL::Test::Utils::tempdir_short();
	my $log = "$folder/chromedriver.log";
	local @ENV{qw(HOME TMPDIR XDG_CONFIG_HOME XDG_CACHE_HOME)} = ($folder) x 4;

	$driver = IPC::Run::start([ program('chromedriver'), '--port=0' ],
		'<', '/dev/null', '>', $log, '2>&1');
	poll_until(sub { -e $log && slurp_file($log) =~ /started successfully on port (\d+)/
			&& ($address = "http://127.0.0.1:$1") })
	  or croak "chromedriver: " . slurp_file($log);
	return;
}

sub stop_driver
{
	$_->close foreach @open;
	$driver->kill_kill(grace => 5) if $driver;
	undef $driver;
	return;
}

END
{
	my $status = $?;
	eval { stop_driver() };
	$? = $status;
}

# One command of the protocol; its value.  Errors are raised.
sub command
{
	my ($method, $path, $arguments) = @_;
	my %content;

	%content = (content => $json->encode($arguments // {})) if $method eq 'POST';
	my $answer = HTTP::Tiny->new(timeout => 60)->request($method, "$address$path", \%content);
	my $value = eval { $json->decode($answer->{content})->{value} };
	croak "$method $path: $answer->{content}" unless $answer->{success};
	return $value;
}

# A browser of its own: it shares no cookies with another.
sub new
{
	my ($class) = @_;
	my @arguments = qw(--headless=new --no-sandbox --disable-gpu --disable-dev-shm-usage
	  --disable-extensions --disable-background-networking --no-first-run
	  --window-size=900,1000);
	my $session = command('POST', '/session', {
			capabilities => {
				alwaysMatch => {
					browserName => 'chrome',
					pageLoadStrategy => 'none',
					'goog:chromeOptions' => {
						binary => program('chromium', 'chromium-browser'),
						args => \@arguments } } } });
	my $self = bless { path => "/session/$session->{sessionId}" }, $class;
	push @open, $self;
	return $self;
}

sub close
{
	my ($self) = @_;
	my $path = delete $self->{path};

	command('DELETE', $path) if $path;
	return;
}

sub ask
{
	my ($self, $method, $path, $arguments) = @_;
	return command($method, "$self->{path}$path", $arguments);
}

sub tab { return $_[0]->ask('GET', '/window'); }

sub new_tab
{
	my ($self) = @_;
	my $handle = $self->ask('POST', '/window/new', { type => 'tab' })->{handle};

	$self->go_to_tab($handle);
	return $handle;
}

sub go_to_tab
{
	my ($self, $handle) = @_;
	$self->ask('POST', '/window', { handle => $handle });
	return;
}

# The result of a function's body in the page.
sub run
{
	my ($self, $body, @arguments) = @_;
	return $self->ask('POST', '/execute/sync', { script => $body, args => \@arguments });
}

# The number of the element of this id, as the protocol has it.
sub element
{
	my ($self, $id) = @_;
	my $found = $self->ask('POST', '/element', { using => 'css selector', value => "#$id" });

	return (values %$found)[0];
}

# As by a user: a mark on the page shows later that it is another one.
sub click
{
	my ($self, $id) = @_;
	my $element = $self->element($id);

	$self->run('window.clicked = true');
	$self->ask('POST', "/element/$element/click");
	return;
}

# Waits until the page that was clicked on has given way to another.
sub loaded
{
	my ($self) = @_;

	poll_until(
		sub {
			eval {
				$self->run("return !window.clicked && document.readyState === 'complete'"
					  . " && location.protocol.startsWith('http')");
			};
		},
		30) or croak 'no page comes';
	return $self;
}

sub visit
{
	my ($self, $url) = @_;

	$self->run('window.clicked = true');
	$self->ask('POST', '/url', { url => $url });
	return $self->loaded;
}

# What stands in a field is replaced, key by key.
sub type
{
	my ($self, $id, $text) = @_;
	my $element = $self->element($id);

	$self->ask('POST', "/element/$element/clear");
	$self->ask('POST', "/element/$element/value", { text => $text });
	return;
}

sub text
{
	my ($self, $id) = @_;
	return $self->ask('GET', '/element/' . $self->element($id) . '/text');
}

sub value
{
	my ($self, $id) = @_;
	return $self->run('return document.getElementById(arguments[0]).value', $id);
}

# Those of this page, also those that no script can read.
sub cookies
{
	my ($self) = @_;
	return @{ $self->ask('GET', '/cookie') };
}

# Into the folder that RYW_SCREENSHOTS names, if it does.
sub screenshot
{
	my ($self, $name) = @_;
	my $folder = $ENV{RYW_SCREENSHOTS} or return;

	open(my $file, '>:raw', "$folder/$name.png") or croak "$folder/$name.png: $!";
	print $file decode_base64($self->ask('GET', '/screenshot'));
	CORE::close($file);
	return;
}

1;
